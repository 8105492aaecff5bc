"""Words and amounts on pages. Names come from files of strangers: they are cleaned, and escaped where shown."""

from harness.units import format_bytes, format_seconds


def amount(unit: str, value: float | None) -> str:
    """A quantity in the unit that people read it in."""
    if value is None:
        return "–"
    if unit == "bytes":
        return format_bytes(value)
    return format_seconds(value) if unit == "s" else f"{digits(value)} tokens/s"


def digits(value: float) -> str:
    """Three significant digits, no exponent."""
    if value == 0:
        return "0"
    places = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{places}f}"


def percent(ratio: float | None) -> str:
    """A signed share."""
    return "–" if ratio is None else f"{100 * ratio:+.1f} %"
