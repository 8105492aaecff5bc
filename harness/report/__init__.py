"""Show runs and predictions."""
