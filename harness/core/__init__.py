"""Types of the domain, units, errors, statistics and readers of untrusted input: what every other folder builds on."""
