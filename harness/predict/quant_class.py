"""Classes of quantisations that cost alike."""

import re
from typing import Final

BITS: Final = {"f16": 16.0, "q8": 8.5, "w8": 8.5, "w6": 6.5, "q5": 6.0, "q4k": 4.8, "q4": 4.5, "w4": 4.5, "q3k": 3.6,
                "w3": 3.5, "q2k": 2.8, "w2": 2.5, "iq": 2.8, "ternary": 1.8}  # fmt: skip
"""Bits of a weight by class of quantisation, where nobody gives a size."""


def quant_class(text: str) -> str:
    """Class of a quantisation by its name.

    IQ3_K and IQ2_K of ik_llama.cpp look values up in a short table, as cheap as K-quants; lattices (IQ3_XXS, ...)
    and trellises (IQ3_KT) are not.
    """
    q = text.upper()
    if re.search(r"TERNARY|1[- ]BIT|\bQ1_|I2_S|TL1|TL2|IQ\d_(BN|TN)|TQ\d", q):
        return "ternary"
    for pattern, name in (
        (r"IQ3_K(?!T)", "q3k"),
        (r"IQ2_K(?!T)", "q2k"),
        (r"IQ[123]", "iq"),
        (r"IQ4", "q4k"),
        (r"W2|\b2[- ]?BIT|2\.\d+ BPW|INT2", "w2"),
        (r"\b3[- ]?BIT|INT3|W3", "w3"),
        (r"Q2", "q2k"),
        (r"Q3", "q3k"),
        (r"Q4_K|OLLAMA|MXFP4|UD-Q4", "q4k" if "MXFP4" not in q else "q4"),
        (r"INT4|\b4[- ]?BIT|W4|4W8A|NVFP4|AWQ|GPTQ", "w4"),
        (r"\b[56][- ]?BIT", "w6"),
        (r"INT8|\b8[- ]?BIT|W8|FP8", "w8"),
        (r"Q4", "q4"),
        (r"Q[56]", "q5"),
        (r"Q8", "q8"),
        (r"F16|FP16|BF16|F32|FP32", "f16"),
    ):
        if re.search(pattern, q):
            return name
    return "q4"


def interleaved(type_name: str) -> bool:
    """Whether a file has rows side by side for vector units: R4 and R8 of ik_llama.cpp, 4x4 to 8x8, Ampere's."""
    return re.search(r"_R\d+$|_[48]_[48]$|^Q4_K_4$|^Q8R16$", type_name.upper()) is not None
