"""Memory of a run: weights, KV cache, scratch buffers, and what fits where."""
