"""Keep run records: strict reading, atomic writing, history."""
