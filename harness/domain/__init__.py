"""Frozen types of the domain; every numeric field's name ends in its unit."""
