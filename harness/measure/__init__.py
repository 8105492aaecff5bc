"""Measure: child processes, clocks, sensors, disks and remote targets."""
