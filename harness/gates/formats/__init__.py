"""How judgements are written: one module a format, each with ``render(judgements) -> str``."""
