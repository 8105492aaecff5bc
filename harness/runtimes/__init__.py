"""Runtimes: one module (or folder) each, ending in RUNTIME."""
