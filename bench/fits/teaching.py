"""Which published rows teach the fit, and what a row was measured with that nobody gets unasked."""

import re
from typing import Final

from harness.speed.published.rows import BY_BITS, PublishedRow

_MARKED: Final = re.compile(
    r"suspect|implausib|throttl|unstable|memory-pressure|cache-resident|bus limit|does not fit|disagree"
)
"""Marks and notes of rows that teach nothing: what they say is of a fault, of heat, of swap or of a cache."""
_SETUPS: Final = re.compile(
    r"amdvlk|hipblaslt=0|before the (?:pr|change)|\bfa ?[= ] ?(?:0|off)\b|flash attention off|build slow|spill"
)
"""Drivers, libraries and switches that nobody has who lets a program choose: AMD's own Vulkan driver (given
up in 2025) is up to seven times slower than Mesa's, matrices without hipBLASLt three times."""


def setup_of(row: PublishedRow) -> str:
    """What a row was measured with that nobody gets unasked; empty for the usual."""
    found = _SETUPS.search(f"{row.raw.get('runtime', '')} {row.raw.get('notes', '')}".lower())
    if found:
        return found[0]
    return ""


def teaches(row: PublishedRow) -> bool:
    """Whether a row says of its chip what it does where a model runs as it should, and its bytes are known."""
    return row.raw.get("derived") != BY_BITS and not _MARKED.search(
        f"{row.excluded} {row.raw.get('notes', '')}".lower()
    )
