"""Runtimes: one module (or folder) each, ending in RUNTIME."""

HELPERS = ("simple",)
"""Modules here that are no runtime: the base of those that have three methods."""
