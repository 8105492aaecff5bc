"""Spread a matrix of runs over devices: on Dask distributed for many, over SSH for one."""
