"""Words and amounts on pages. Names come from files of strangers: they are cleaned here, and escaped where shown."""

import re
from typing import Final

from harness.units import format_bytes, format_seconds

_UNSEEN: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufffe\uffff\ud800-\udfff]+"
)
NAME_MAX: Final = 120


def clean(text: str, most: int = NAME_MAX) -> str:
    """Text on one line, without signs that cannot be seen: controls, zero widths, changes of direction; cut to size."""
    shown = " ".join(_UNSEEN.sub(" ", text).split())
    return shown if len(shown) <= most else shown[: most - 1] + "…"


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
