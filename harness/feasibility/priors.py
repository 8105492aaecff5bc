"""Priors of the fitted terms: where each starts and how far rows must pull to move it.

Means are physics (a kernel launch costs some microseconds, a memory system delivers most of its specification); widths
say how unlike the members of a pool are thought to be. Chosen once by kind of term, never by chip.
"""

import math
from typing import Final

MEANS: Final = {
    "a": math.log(60e-6),
    "e": math.log(0.82),
    "c": math.log(12.0),
    "k": math.log(0.7),
    "m": math.log(0.35),
    "o": math.log(3e-3),
    "e/moe": math.log(0.8),
    "a/moe": math.log(2.0),
    "a/cpu": -1.5,
    "a/npu": 0.5,
    "e/hbm": -0.2,
    "e/apple-cpu": math.log(0.5),
}

WIDTHS: Final = {
    "a": 0.7,
    "e": 0.15,
    "c": 0.7,
    "k": 0.5,
    "m": 1.0,
    "o": 1.0,
    "e/moe": 0.3,
    "a/moe": 0.5,
    "e/bandwidth": 0.1,
    "e/hbm": 0.4,
    "e/apple-cpu": 0.4,
    "a/year": 0.25,
    "c/cpu": 1.0,
    "c/gpu": 0.7,
}


def prior_of(key: str) -> tuple[float, float]:
    """Mean and width of a term by its key."""
    if key in WIDTHS:
        return MEANS.get(key, 0.0), WIDTHS[key]
    law, _, rest = key.partition("/")
    mean = MEANS.get(key, 0.0)
    if rest.startswith("runtime"):
        return mean, 0.3
    if rest.startswith("year"):
        return mean, 0.15
    return mean, {"a": 0.5, "e": 0.15 if rest.count("/") == 0 else 0.12, "c": 0.5, "k": 0.5, "m": 0.4, "o": 0.5}.get(
        law, 0.3
    )
