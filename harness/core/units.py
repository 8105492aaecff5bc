"""Units, kept apart: GB is 10**9 bytes, GiB is 2**30 bytes, and nothing converts silently.

Vendors quote bandwidth and disks in GB, operating systems quote RAM in GiB. Inside the project every quantity
is in a base unit (bytes, seconds, FLOP, joules) and its name ends in that unit; the helpers here are for the
edges.
"""

import re
from typing import Final

MB: Final = 10**6
GB: Final = 10**9
KIB: Final = 2**10
MIB: Final = 2**20
GIB: Final = 2**30
TERA: Final = 10**12


def parse_bytes(text: str, whole_bytes: int | None = None) -> int:
    """Bytes of a size as people write it: ``600MB`` and ``1.5 GB`` are decimal, ``2GiB`` and bare ``800M`` binary.

    A bare letter is binary because every tool that limits memory reads it so (ulimit, systemd, container
    engines). A bare number is refused: who types 10 means 10 GiB, not 10 bytes. With ``whole_bytes``,
    ``0.6x`` is that share of it.

    Raises:
        ValueError: No number, no unit, no such unit, or nothing above 0 bytes.
    """
    shares = ", or 0.6x of the file"
    if whole_bytes is None:
        shares = ""
    match = re.fullmatch(r"(\d*\.?\d+)\s*(x|[kmgt]?b?|[kmgt]ib?)", text.strip().lower())
    if match is None or (match[2] == "x" and whole_bytes is None):
        raise ValueError(f"found {text!r}, expected a size such as 600MB, 1.5GiB or 800M{shares}")
    number = float(match[1])
    unit = match[2]
    if not unit:
        raise ValueError(f"found {text.strip()}, expected a size with its unit: {text.strip()}GiB")
    if unit == "x":
        size = number * (whole_bytes or 0)
    else:
        if unit.endswith("b") and "i" not in unit:
            base = 1000
        else:
            base = 1024
        size = number * base ** "bkmgt".index(unit[0])
    if not 1 <= size < float(2**63):
        raise ValueError(f"found {text!r}, expected a size of at least one byte and below 8 EiB")
    return int(size)


def format_bytes(size_bytes: float) -> str:
    """Size as people read RAM: binary units, named as such (``1.04 GiB``, ``877 MiB``)."""
    for unit, name, digits in ((GIB, "GiB", 2), (MIB, "MiB", 0), (KIB, "KiB", 0)):
        if abs(size_bytes) >= unit:
            return f"{size_bytes / unit:.{digits}f} {name}"
    return f"{size_bytes:.0f} B"


def format_rate(bytes_per_s: float) -> str:
    """Bandwidth as vendors print it: decimal units (``60.0 GB/s``, ``450 MB/s``)."""
    if abs(bytes_per_s) >= GB:
        return f"{bytes_per_s / GB:.1f} GB/s"
    return f"{bytes_per_s / MB:.0f} MB/s"


def format_seconds(seconds: float) -> str:
    """Duration with three significant digits in the unit that suits it (``31.2 ms``, ``4.05 s``, ``12.5 min``)."""
    if abs(seconds) >= 600:
        if abs(seconds) < 36_000:
            return f"{seconds / 60:.3g} min"
        return f"{seconds / 3600:,.3g} h"
    for unit, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if abs(seconds) >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds * 1e9:.3g} ns"


def counted(count: int, noun: str) -> str:
    """A count with its noun (``1 run``, ``2 runs``, ``1,000 runs``)."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def format_number(value: float, digits: int = 3) -> str:
    """Number with so many significant digits and no exponent, as people write it (``0.73``, ``190``, ``234,000``)."""
    rounded = float(f"{value:.{digits}g}")
    if abs(rounded) >= 10**digits:
        return f"{rounded:,.0f}"
    return f"{value:.{digits}g}"


def format_percent(ratio: float) -> str:
    """A share in whole percent, below 1 % with a digit more (``12%``, ``0.3%``)."""
    return f"{ratio:.1%}" if abs(ratio) < 0.01 else f"{ratio:.0%}"


def format_amount(unit: str, value: float, other: str) -> str:
    """A value in bytes or seconds as people read it; of any other unit ``other``."""
    if unit == "bytes":
        return format_bytes(value)
    if unit == "s":
        return format_seconds(value)
    return other
