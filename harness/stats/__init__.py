"""Statistics that know no domain: intervals, bootstrap ratios, drift."""
