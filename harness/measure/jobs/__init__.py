"""What a measured child is asked to do: one file a kind, with its job, its entry and how its events are read."""
