"""Statistics that know no domain: intervals of medians and ratios, detectable effects, decisions by three answers."""
