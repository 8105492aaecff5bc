"""Terms of the laws: their names, what is believed of them before any row, and how they pool.

A law is log-linear: the logarithm of its value is the sum of its terms. A key such as ``e`` or ``a/year`` is
one physical term. A key with a colon, ``e/family gpu:nvidia-ada``, is a level of the kind before it: levels
of one kind differ by a width that is fitted with them (a random effect), so a kind whose levels are alike
pools them into one. A level that no row has spoken for is 0, known to the width of its kind.
"""

import math
from collections.abc import Mapping
from typing import Final

Term = tuple[str, float]
Features = dict[str, tuple[Term, ...]]
"""Terms that apply, by law: key and factor."""

MEANS: Final = {
    "a": math.log(60e-6),
    "a/cpu": math.log(20e-6),
    "e": math.log(0.75),
    "e/cpu": math.log(0.55),
    "e/npu": math.log(0.3),
    "e/bandwidth/npu": -0.5,
    "c": math.log(8.0),
    "k": math.log(0.7),
    "m": math.log(0.35),
    "m/cpu": math.log(0.1),
    "h": -1.0,
    "h/year": 0.9,
    "o": math.log(3e-3),
    "a/moe": math.log(2.0),
    "a/recurrent": math.log(2.0),
}
"""Physics, or what is known of an engine: a kernel launch takes some microseconds, a memory system delivers
most of its specification, dequantising a weight takes about ten operations, attention over a prompt was slow
before flash attention became the default in 2025. A router with its experts, or a convolution with a gated
state, has about as many kernels again as a plain layer (llama.cpp, src/llama-graph.cpp and src/models). The
value of ``e`` stands for ``e/gpu`` and ``e/npu`` too."""

SIDES: Final = ("cpu", "gpu", "npu")
WIDTHS: Final = {"e": 0.3, "k": 0.5, "h": 0.5, "e/moe": 0.3}
"""Of physical terms whose size is known better than within a factor two."""
SLOPE_WIDTH: Final = 0.25
"""Of an exponent: speed as a power of bandwidth, threads, peak, size or length of the prompt; or of a trend
by year."""
SLOPES: Final = {"bandwidth", "threads", "peak", "share", "size", "short", "long", "year", "ratio"}
TERM_WIDTH: Final = 0.7
LEVEL_WIDTH: Final = 0.25
"""Of a kind that no fit has met."""


def kind_of(key: str) -> str:
    """The kind that a level belongs to; empty for a physical term."""
    kind, colon, _ = key.partition(":")
    if colon:
        return kind
    return ""


def prior_of(key: str, widths: Mapping[str, float] = {}) -> tuple[float, float]:
    """Mean and width of a term before any row; ``widths`` are the fitted ones, by kind."""
    kind, colon, _ = key.partition(":")
    if colon:
        return 0.0, widths.get(kind, LEVEL_WIDTH)
    law, _, rest = key.partition("/")
    if rest in SIDES:
        base = law
    else:
        base = key
    if not SLOPES.isdisjoint(rest.split("/")):
        width = SLOPE_WIDTH
    else:
        width = WIDTHS.get(base, TERM_WIDTH)
    return MEANS.get(key, MEANS.get(base, 0.0)), width


def laws_of(listed: Features, values: Mapping[str, float]) -> dict[str, float]:
    """Value of each law: exp of the sum of its terms; a term without a value has its prior's mean."""
    return {
        law: math.exp(sum((values[key] if key in values else prior_of(key)[0]) * x for key, x in terms))
        for law, terms in listed.items()
    }


def gradient_of(listed: Features, slopes: Mapping[str, float]) -> dict[str, float]:
    """D ln t / d term, from d ln t / d ln law."""
    found: dict[str, float] = {}
    for law, terms in listed.items():
        for key, x in terms:
            found[key] = found.get(key, 0.0) + slopes[law] * x
    return found
