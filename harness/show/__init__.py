"""Screens, tables and pages: answers and runs as people read them."""
