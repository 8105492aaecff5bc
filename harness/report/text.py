"""Words and amounts on pages and in tables."""

from typing import Final

from harness.domain.record import RunRecord
from harness.records.compare import ComparedRow
from harness.records.derive import Measured, summarise
from harness.units import format_amount

RUN_COLUMNS: Final = ("pp t/s", "tg t/s", "p99", "first token", "load", "peak")


def amount(unit: str, value: float | None) -> str:
    """A quantity in the unit that people read it in."""
    return "–" if value is None else format_amount(unit, value, f"{digits(value)} {unit}".rstrip())


def digits(value: float) -> str:
    """Three significant digits, no exponent."""
    if value == 0:
        return "0"
    places = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{places}f}"


def title_of(name: str, quant: str, depth_tokens: int) -> str:
    """Name, mixture and depth of a run, as its row is headed."""
    depth = f" @ d{depth_tokens}" if depth_tokens else ""
    return f"{name}{' ' + quant if quant and quant.lower() not in name.lower() else ''}{depth}"


def compared(row: ComparedRow) -> tuple[str, str, str, str, str]:
    """What was predicted, its interval, what was measured, the error of the prediction, and whether it lies inside."""
    between = f"{amount(row.unit, row.low)} to {amount(row.unit, row.high)}"
    error = "–" if row.error_ratio is None else f"{100 * row.error_ratio:+.1f} %"
    inside = "disturbed" if row.doubted else "inside" if row.inside else "outside"
    return amount(row.unit, row.predicted), between, amount(row.unit, row.measured), error, inside


def run_cells(record: RunRecord) -> tuple[str, ...]:
    """Speeds, times and memory of a run under ``RUN_COLUMNS``; ``~``: every sample was disturbed."""
    tests, memory = summarise(record), record.memory
    decode, timed = tests.test("decode"), (tests.test("first_token"), tests.test("load", "load"))
    times = [decode.token_p99_s if decode else None, *(test.value if test else None for test in timed)]
    shown = [amount("s", seconds) for seconds in times]
    peak = amount("bytes", (memory.peak_rss_bytes or None) if memory else None)
    return (_speed(tests.test("prefill")), _speed(decode), *shown, peak)


def _speed(test: Measured | None) -> str:
    """Tokens/s of a test; the median of its disturbed samples, marked, where there are no others."""
    if test is None or (test.value is None and test.doubted_value is None):
        return "–"
    return f"~{test.doubted_value:.1f}" if test.value is None else f"{test.value:.1f}"
