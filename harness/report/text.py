"""Words and amounts on pages. Names come from files of strangers: they are cleaned, and escaped where shown."""

from harness.records.compare import Row
from harness.units import format_amount


def amount(unit: str, value: float | None) -> str:
    """A quantity in the unit that people read it in."""
    return "–" if value is None else format_amount(unit, value, f"{digits(value)} tokens/s")


def digits(value: float) -> str:
    """Three significant digits, no exponent."""
    if value == 0:
        return "0"
    places = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{places}f}"


def compared(row: Row) -> tuple[str, str, str, str]:
    """What was predicted, its interval, what was measured, and the error of the prediction."""
    between = f"{amount(row.unit, row.low)} to {amount(row.unit, row.high)}"
    error = "–" if row.error_ratio is None else f"{100 * row.error_ratio:+.1f} %"
    return amount(row.unit, row.predicted), between, amount(row.unit, row.measured), error
