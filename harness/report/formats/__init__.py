"""Output formats, one module each: ``render(records, report=None) -> str``; the file name is the format's name."""
