"""Rows that others published, and what is learnt from them: fitting, leaving out, validation."""
