"""Runtimes: one module (or folder) each, ending in RUNTIME."""

HELPERS = ("one_sequence", "simple")
"""Modules here that are no runtime: the bases of those that run one sequence, and of those with three methods."""
