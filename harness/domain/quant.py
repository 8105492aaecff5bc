"""What people write for a quantisation: found in a model's name, and turned into a mixture of llama.cpp.

Many are no mixture of llama.cpp: those stand as the mixture nearest in bits, with the interval of bits a weight that
published files of that kind have (all weights counted, embeddings too).
"""

import re
from typing import Final

from harness.domain.base import Frozen, shipped_table


class Quantisation(Frozen, frozen=True, kw_only=True):
    """What a quantisation's name was taken for.

    Attributes:
        mixture: llama.cpp's name of it, or of the mixture that stands in for it.
        bits_low: Fewest bits a weight that published files of it have; 0 where the mixture is exactly meant.
        why: What it is, and why that mixture; empty where the mixture is exactly meant.
    """

    text: str
    mixture: str
    bits_low: float = 0.0
    bits_high: float = 0.0
    why: str = ""


_TABLES: Final = shipped_table("data/quantisations.toml")
SAME: Final[dict[str, str]] = _TABLES["same"]
"""Other spellings of a mixture of llama.cpp."""
_MIXTURES: Final = frozenset(_TABLES["mixtures"]["all"].split())
_IN_NAME: Final = re.compile(_TABLES["in_name"], re.IGNORECASE | re.VERBOSE)
_IN_WORDS: Final = re.compile(
    r"\b((?:I?Q\d|TQ\d|F16|F32|BF16|MXFP4|NVFP4)[A-Z0-9_]*)(?: - (?:Small|Medium|Large)| mix)?"
)


def split(name: str) -> tuple[str, str]:
    """A model's name without its quantisation, and the quantisation as written (empty where it names none).

    A mixture after a colon, a space or a dash counts, and one in a file's name (``-Q4_K_M.gguf``); of two the first.
    """
    found = [match for match in _IN_NAME.finditer(name) if match.start(1) > 0]
    rest = name
    for match in reversed(found):
        rest = rest[: match.start()] + rest[match.end() :]
    return rest.strip(" -_.:"), found[0][1] if found else ""


def understood(text: str) -> Quantisation | None:
    """What a quantisation's name stands for; None for one that nobody knows."""
    plain = re.sub(r"[-_ ]+", "_", text.strip().upper()).strip("_")
    plain = SAME.get(plain, plain)
    if plain in _MIXTURES:
        return Quantisation(text=text, mixture=plain)
    for pattern, stands, low, high, why in _TABLES["rules"]:
        found = re.fullmatch(pattern, plain)
        if found is None:
            continue
        if stands == "bits":
            bits = float(next(g for g in found.groups() if g))
            mixture = next(m for most, m in _TABLES["up_to_bits"] if bits + max(low + high, 0) / 2 <= most)
            low, high = bits + low, bits + high  # noqa: PLW2901 - the rule's are relative to the name's
        else:
            mixture = found.expand(stands)
        mixture = SAME.get(mixture, mixture)
        if not low:
            return Quantisation(text=text, mixture=mixture)
        why = f"{why}; {low:g} to {high:g} bits a weight in published files, {mixture} stands for it"  # noqa: PLW2901
        return Quantisation(text=text, mixture=mixture, bits_low=low, bits_high=high, why=why)
    return None


def mixture_in(words: str) -> str:
    """The mixture in llama.cpp's own words: ``qwen2 1B Q4_K - Medium`` is ``Q4_K_M``; empty where they name none."""
    found = _IN_WORDS.search(words)
    if found is None:
        return ""
    known = understood(found[0])
    return known.mixture if known and not known.bits_low else found[1]
