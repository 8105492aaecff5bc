"""Speed of a run: laws fitted on published measurements, and timings of this machine."""
