"""Tests, and what several of them share; a package, so that no other one of that name is taken for it."""
