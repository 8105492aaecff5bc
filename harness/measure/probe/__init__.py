"""Probe this machine: its memory, disk and arithmetic, and what an engine costs on it."""
