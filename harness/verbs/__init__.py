"""Work of the verbs beside answering: run, check, tune, learn, recommend; no parsing, no rendering."""
