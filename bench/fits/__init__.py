"""Fits of the laws to published rows, and their errors on rows that they had not seen."""
