"""Hardware: device files, chips, and the device that a line of parts describes."""
