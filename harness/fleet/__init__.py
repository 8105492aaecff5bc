"""Spread a matrix of runs over devices, on Dask distributed."""
