"""Use cases that join the layers below: what a verb does, without parsing or rendering."""
