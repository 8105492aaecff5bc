"""Systems that people build around a language model, measured like one: each a chain of passes over its parts."""

from typing import Final

TRACE_ENDING: Final = ".trace.json"
"""The end of a trace file's name."""
