"""Published rows of other kinds than speeds of one sequence: batches, drafts, streaming, splits, energy and heat."""
