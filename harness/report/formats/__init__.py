"""Output formats, one module each: ``render(records, report) -> str``; the file name is the format's name."""
