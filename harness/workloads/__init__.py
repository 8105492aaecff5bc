"""Systems that are measured like a language model: one module each, ending in WORKLOAD."""
