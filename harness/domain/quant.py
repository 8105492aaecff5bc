"""What people write for a quantisation: found in a model's name, and turned into a mixture of llama.cpp.

Many are no mixture of llama.cpp: those stand as the mixture nearest in bits, with the interval of bits a weight that
published files of that kind have (all weights counted, embeddings too).
"""

import re
from typing import Final, NamedTuple

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


class _Rule(NamedTuple):
    pattern: str
    mixture: str
    low: float
    high: float
    why: str


_UNSLOTH: Final = "an Unsloth dynamic mixture: types chosen layer by layer"
_MLX: Final = "MLX groups of 64 with a scale and an offset in 16 bits each"
_GROUPS: Final = "4-bit groups, embeddings and output mostly in 16 bits"
_IK: Final = "a type of ik_llama.cpp"

_EXACT: Final = re.compile(
    r"(?:IQ4_NL|IQ4_XS|IQ3_XXS|IQ3_XS|IQ3_S|IQ3_M|IQ2_XXS|IQ2_XS|IQ2_S|IQ2_M|IQ1_S|IQ1_M|TQ1_0|TQ2_0|Q[12458]_[01]"
    r"|Q6_K|Q2_K(?:_S)?|[QB]?F(?:16|32)|BF16|F16|F32|MXFP4_MOE|Q[345]_K_[SML])"
)
_SAME: Final = {
    "FP16": "F16", "FP32": "F32", "FLOAT16": "F16", "BFLOAT16": "BF16", "MXFP4": "MXFP4_MOE", "Q5_K": "Q5_K_M",
    "Q4_K": "Q4_K_M", "Q3_K": "Q3_K_M", "Q4K": "Q4_K_M",
    "Q5_K_MEDIUM": "Q5_K_M", "Q4_K_MEDIUM": "Q4_K_M", "Q3_K_MEDIUM": "Q3_K_M", "Q5_K_SMALL": "Q5_K_S",
    "Q4_K_SMALL": "Q4_K_S", "Q3_K_SMALL": "Q3_K_S", "Q3_K_LARGE": "Q3_K_L",
}  # fmt: skip
"""Other spellings of a mixture; llama-bench prints ``Q4_K - Medium``."""

_RULES: Final = (
    _Rule(r"UD_Q8_K_XL|Q8_K_XL", "Q8_0", 8.7, 12.5, _UNSLOTH),
    _Rule(r"UD_Q6_K(?:_\w+)?", "Q6_K", 6.5, 7.5, _UNSLOTH),
    _Rule(r"UD_Q5_K_\w+|Q5_K_XL", "Q5_K_M", 5.5, 7.5, _UNSLOTH),
    _Rule(r"(?:QAT_)?UD_Q4_K_\w+|Q4_K_XL|UD_Q4_[01]", "Q4_K_M", 4.4, 5.9, _UNSLOTH),
    _Rule(r"UD_Q3_K_\w+|Q3_K_XL", "Q3_K_M", 3.5, 4.4, _UNSLOTH),
    _Rule(r"UD_Q2_K_\w+|Q2_K_XL", "Q2_K", 2.5, 3.4, _UNSLOTH),
    _Rule(r"UD_(IQ4_(?:NL|XS))\w*", r"\1", 3.8, 4.7, _UNSLOTH),
    _Rule(r"UD_(IQ3_(?:XXS|S|M))\w*", r"\1", 2.8, 3.8, _UNSLOTH),
    _Rule(r"UD_(IQ2_(?:XXS|XS|S|M))\w*", r"\1", 2.2, 3.0, _UNSLOTH),
    _Rule(r"UD_(?:IQ|TQ)1_\w+", "IQ1_M", 1.6, 2.4, _UNSLOTH),
    _Rule(r"(?:I1|QAT)_(.+)", r"\1", 0.0, 0.0, ""),
    *(
        _Rule(rf"Q{d}_K_(?:L|P|M|R4)", f"Q{d}_K", d + 0.5, d + 1.6, "a variant with more bits in places")
        for d in range(2, 7)
    ),
    _Rule(r"IQ([2-6])_(?:K|KS|KL|KT|KSS)(?:_R4)?|IQ([1-4])_(?:XXS|XS|S|M)_R4", "bits", -0.3, 1.1, _IK),
    _Rule(r"NVFP4", "Q4_K_S", 4.5, 5.5, "NVIDIA's 4-bit floats in blocks of 16: 4.5 bits, other parts in more"),
    _Rule(r"MXFP8|FP8(?:_\w+)?", "Q8_0", 8.0, 8.6, "8-bit floats"),
    _Rule(r"FP4", "Q4_0", 4.2, 5.5, "4-bit floats"),
    _Rule(r"MXFP4_Q[48]", "MXFP4_MOE", 4.2, 5.0, "MLX: experts in MXFP4, the rest in groups of 64"),
    _Rule(r"(?:AWQ|GPTQ)(?:_INT4|_4BIT|_G?\d+|_W4A16)*|(?:INT4_|4BIT_)(?:AWQ|GPTQ)", "Q4_0", 4.1, 5.8, _GROUPS),
    _Rule(r"(?:GPTQ_|AWQ_)?(?:INT8|8BIT)_?(?:AWQ|GPTQ)", "Q8_0", 8.1, 9.5, "8-bit groups"),
    _Rule(r"W4(?:A16|A8)?(?:_\w+)?|(?:INT|BNB_?|NF)4(?:_?\w+)?|8DA4W|Q4F(?:16|32)(?:_\d)?", "Q4_0", 4.1, 7.6, _GROUPS),
    _Rule(r"W8(?:A8|A16)?|INT8(?:_\w+)?|Q8F(?:16|32)(?:_\d)?", "Q8_0", 7.4, 10.0, "8-bit weights and their scales"),
    _Rule(r"(?:MLX_)?3_?BITS?(?:_\w+)?", "Q3_K_S", 3.4, 4.0, _MLX),
    _Rule(r"(?:MLX_)?2_?BITS?(?:_\w+)?", "Q2_K", 2.4, 3.0, _MLX),
    _Rule(r"(?:MLX_)?4_?BITS?(?:_\w+)?|Q4", "Q4_0", 4.4, 5.1, _MLX),
    _Rule(r"(?:MLX_)?5_?BITS?(?:_\w+)?", "Q5_0", 5.4, 6.0, _MLX),
    _Rule(r"(?:MLX_)?6_?BITS?(?:_\w+)?", "Q6_K", 6.4, 7.0, _MLX),
    _Rule(r"(?:MLX_)?8_?BITS?(?:_\w+)?|Q8", "Q8_0", 8.4, 9.1, _MLX),
    _Rule(r"(?:EXL[23]_)?(\d+(?:\.\d+)?)_?BPW(?:_H\d+)?|EXL[23]_(\d+(?:\.\d+)?)", "bits", -0.05, 0.4, "by its name"),
    _Rule(r"I2_S|TERNARY|1\.58BIT", "TQ2_0", 1.7, 4.0, "ternary weights; embeddings in more bits"),
)  # fmt: skip

_BY_BITS: Final = (
    (1.9, "IQ1_M"), (2.3, "IQ2_XXS"), (2.6, "IQ2_S"), (2.9, "Q2_K_S"), (3.3, "IQ3_XXS"), (3.6, "IQ3_S"),
    (3.95, "Q3_K_M"), (4.4, "IQ4_XS"), (4.7, "Q4_0"), (5.2, "Q4_K_M"), (6.1, "Q5_K_M"), (7.5, "Q6_K"), (99.0, "Q8_0"),
)  # fmt: skip
"""The mixture for up to so many bits a weight, from the sizes that llama.cpp writes for an 8B."""

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


def understood(text: str) -> Quantisation | None:
    """What a quantisation's name stands for; None for one that nobody knows."""
    plain = re.sub(r"[-_ ]+", "_", text.strip().upper()).strip("_")
    plain = _SAME.get(plain, plain)
    if _EXACT.fullmatch(plain):
        return Quantisation(text=text, mixture=plain)
    for rule in _RULES:
        found = re.fullmatch(rule.pattern, plain)
        if found is None:
            continue
        if rule.mixture == "bits":
            bits = float(next(g for g in found.groups() if g))
            mixture = next(m for most, m in _BY_BITS if bits + max(rule.low + rule.high, 0) / 2 <= most)
            low, high = bits + rule.low, bits + rule.high
        else:
            mixture, low, high = found.expand(rule.mixture), rule.low, rule.high
        mixture = _SAME.get(mixture, mixture)
        if not low:
            return Quantisation(text=text, mixture=mixture)
        why = f"{rule.why}; {low:g} to {high:g} bits a weight in published files, {mixture} stands for it"
        return Quantisation(text=text, mixture=mixture, bits_low=low, bits_high=high, why=why)
    return None
