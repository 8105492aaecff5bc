"""What people write for a quantisation: found in a model's name, and turned into a mixture of llama.cpp.

Many are no mixture of llama.cpp: those stand as the mixture nearest in bits, with the interval of bits a weight that
published files of that kind have (all weights counted, embeddings too).
"""

import re
import tomllib
from functools import lru_cache
from importlib.resources import files
from typing import Any, Final

from harness.domain.base import Frozen


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


_EXACT: Final = re.compile(
    r"(?:IQ4_NL|IQ4_XS|IQ3_XXS|IQ3_XS|IQ3_S|IQ3_M|IQ2_XXS|IQ2_XS|IQ2_S|IQ2_M|IQ1_S|IQ1_M|TQ1_0|TQ2_0|Q[12458]_[01]"
    r"|Q6_K|Q2_K(?:_S)?|[QB]?F(?:16|32)|BF16|F16|F32|MXFP4_MOE|Q[345]_K_[SML])"
)
_IN_NAME: Final = re.compile(
    r"""(?ix) [-_.: ]* (?<![a-z0-9])(
      (?:qat[-_])?(?:ud[-_]|i1[-_])?(?:iq|tq|q)[1-8](?:_[01]|_k|_[a-z]+)(?:_[a-z0-9]+)*(?:\ -\ (?:small|medium|large))?
    | mxfp[48](?:[-_ ](?:moe|q[48]))? | nvfp4 | b?fp?(?:16|32) | fp8(?:[-_](?:dynamic|e4m3))? | bf16
    | (?:mlx[-_])?[2-8]-?bits?(?:[-_ ]?(?:dwq|g\d+|awq|gptq))? | (?:awq|gptq)(?:[-_](?:int[48]|[48]bit|g?\d+|w4a16))*
    | exl[23](?:[-_ ]\d+(?:\.\d+)?(?:bpw)?)? | \d+(?:\.\d+)?[-_ ]?bpw(?:[-_]h\d+)?
    | int[48](?:[-_](?:awq|gptq|w\d+a\d+))? | w[48]a(?:8|16)(?:[-_]g\d+)? | q[48]f(?:16|32)(?:_\d)? | 8da4w | nf4
    | bnb[-_]?4(?:bit)? | i2_s | q[48] )(?![a-z0-9]) """
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


@lru_cache(maxsize=1)
def _tables() -> dict[str, Any]:
    return tomllib.loads((files("harness") / "data" / "quantisations.toml").read_text(encoding="utf-8"))


def understood(text: str) -> Quantisation | None:
    """What a quantisation's name stands for; None for one that nobody knows."""
    tables = _tables()
    same: dict[str, str] = tables["same"]
    plain = re.sub(r"[-_ ]+", "_", text.strip().upper()).strip("_")
    plain = same.get(plain, plain)
    if _EXACT.fullmatch(plain):
        return Quantisation(text=text, mixture=plain)
    for pattern, stands, low, high, why in tables["rules"]:
        found = re.fullmatch(pattern, plain)
        if found is None:
            continue
        if stands == "bits":
            bits = float(next(g for g in found.groups() if g))
            mixture = next(m for most, m in tables["up_to_bits"] if bits + max(low + high, 0) / 2 <= most)
            low, high = bits + low, bits + high  # noqa: PLW2901 - the rule's are relative to the name's
        else:
            mixture = found.expand(stands)
        mixture = same.get(mixture, mixture)
        if not low:
            return Quantisation(text=text, mixture=mixture)
        why = f"{why}; {low:g} to {high:g} bits a weight in published files, {mixture} stands for it"  # noqa: PLW2901
        return Quantisation(text=text, mixture=mixture, bits_low=low, bits_high=high, why=why)
    return None
