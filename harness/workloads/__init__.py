"""Systems that people build around a language model, measured like one: each a chain of passes over its parts."""
