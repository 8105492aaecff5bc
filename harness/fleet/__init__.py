"""Spread a matrix of runs over devices."""
