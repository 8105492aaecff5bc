"""Priors of the fitted terms: where each starts and how far rows must pull to move it.

Means are physics (a kernel launch costs some microseconds, a memory system delivers most of its specification) or what
is known of an engine: few CPU cores cannot draw all that a wide memory gives; OpenCL has no kernels for Q2_K and Q3_K
and reaches about half of a phone's memory; ik_llama.cpp exists for its faster low-bit kernels; attention over a prompt
was slow before flash attention became the default in 2025; experts are read about as well as other weights, and
routing them takes kernels of its own. Widths say how unlike the members of a pool are thought to be. Chosen by kind of
term, never by chip, while looking at the published rows.
"""

import math
from typing import Final

MEANS: Final = {
    "a": math.log(60e-6),
    "e": math.log(0.82),
    "c": math.log(12.0),
    "k": math.log(0.7),
    "m": math.log(0.35),
    "h": -1.0,
    "o": math.log(3e-3),
    "a/moe": math.log(2.0),
    "a/cpu": -1.5,
    "a/npu": 0.5,
    "e/memory/hbm": -0.1,
    "e/apple-cpu": math.log(0.5),
    "e/opencl": -0.4,
    "e/opencl/q2k": -0.6,
    "e/opencl/q3k": -0.6,
    "e/bandwidth/cpu": -0.1,
    "e/npu": -0.3,
    "c/runtime/ik": -0.7,
    "h/year": 0.9,
}

WIDTHS: Final = {
    "a": 0.7,
    "e": 0.15,
    "c": 0.7,
    "k": 0.5,
    "m": 0.4,
    "o": 1.0,
    "e/moe": 0.1,
    "a/moe": 0.5,
    "e/bandwidth": 0.1,
    "e/memory/hbm": 0.3,
    "e/apple-cpu": 0.6,
    "a/year": 0.25,
    "c/cpu": 1.0,
    "c/gpu": 0.7,
    "h": 0.35,
    "h/year": 0.15,
    "m/year": 0.06,
    "m/moe": 0.16,
    "m/peak": 0.16,
}

_BY_LAW: Final = {"a": 0.5, "e": 0.22, "c": 0.25, "k": 0.5, "m": 0.9, "h": 0.3, "o": 0.5}
"""A api or a family."""
_BY_WORD: Final = {
    "runtime": {"": 0.3, "m": 0.66},
    "year": {"": 0.15, "h": 0.1, "m": 0.05},
    "short": {"": 0.16},
    "size": {"": 0.16},
    "long": {"": 0.4},
    "depth": {"": 0.4},
    "peak": {"": 0.4},
    "memory": {"e": 0.15},
    "bandwidth": {"": 0.2},
    "moe": {"a": 0.3, "e": 0.06, "m": 0.4},
    "phone": {"e": 0.15, "m": 0.4},
}
_QUANTS: Final = {"f16", "q8", "q5", "q4", "q4k", "q3k", "q2k", "iq", "ternary"}


def prior_of(key: str) -> tuple[float, float]:
    """Mean and width of a term by its key.

    The widths were chosen by the error on random quarters and halves of the chips left out at once, not on chips left
    out one by one, where siblings hide what a wide term costs.
    """
    mean = MEANS.get(key, 0.0)
    if key in WIDTHS:
        return mean, WIDTHS[key]
    law, _, rest = key.partition("/")
    first, _, last = rest.partition("/")
    by_law = _BY_WORD.get(first, {})
    width = by_law.get(law, by_law.get("", 0.0))
    if width:
        return mean, width
    if last in _QUANTS:
        return mean, {"e": 0.18, "c": 1.0}.get(law, 0.4)
    if first in _QUANTS:
        return mean, {"c": 0.5}.get(law, 0.4)
    if last in {"base", "pro", "max", "ultra"}:
        return mean, {"e": 0.12, "a": 0.25}.get(law, 0.16)
    return mean, _BY_LAW.get(law, 0.3)
