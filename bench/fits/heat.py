"""Fit of the terms of power and heat, and each device predicted without its own rows.

Terms are fitted to ln of what was measured by least squares around the priors of ``heat_priors.toml``, which pools: a
term that few devices speak for stays near its prior.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.rows.heat import KINDS, HeatRow, heat_rows
from harness.answer.nearest import model_of
from harness.core.tables import shipped_table
from harness.speed.energy import knee_seconds
from harness.speed.published.errors_of_rows import Judged
from harness.speed.published.rows import PublishedRow

NOISE: Final = 0.36
"""Spread of ln joules between devices that share all terms: what a vote may be off by before it pulls at them. Of 0.3,
0.36 and 0.42 the one whose intervals score best on devices left out."""
_SHARE_NOISE: Final = 0.15
_HUBER: Final = 1.5


def fit(rows: Sequence[HeatRow]) -> dict[str, float]:
    """Terms for the rows: least squares of (ln predicted - ln measured) / noise and of the distance to the priors."""
    from scipy.optimize import least_squares

    priors = shipped_table("heat_priors.toml", "bench.fits")
    keys = tuple(priors)
    mean = np.log([prior["start"] for prior in priors.values()])
    precision = np.array([1 / prior["width"] for prior in priors.values()])
    counts = Counter(row.vote for row in rows)

    def misses(theta: NDArray[np.float64]) -> NDArray[np.float64]:
        terms = dict(zip(keys, theta, strict=True))
        found = []
        for row in rows:
            predicted = row.predicted(terms)
            noise = (NOISE if row.kind == "energy" else _SHARE_NOISE) * row.doubt * math.sqrt(counts[row.vote])
            if predicted is not None:
                found.append(math.log(predicted / row.measured) / noise)
            if row.knee_s:
                knee = knee_seconds(row.load, row.speed_tokens_per_s, terms)
                found.append(math.log(knee / row.knee_s) / (2 * noise) if knee else 0.0)
        return np.array([*map(_huber, found), *((theta - mean) * precision)])

    found = least_squares(misses, mean, diff_step=1e-4)
    return {key: round(float(t), 4) for key, t in zip(keys, found.x, strict=True)}


def _huber(miss: float) -> float:
    """A miss whose square is Huber's loss: beyond 1.5 it grows with the root, so that no one device decides a term."""
    return miss if abs(miss) <= _HUBER else math.copysign(math.sqrt(_HUBER * (2 * abs(miss) - _HUBER)), miss)


def shipped() -> list[HeatRow]:
    """Rows of both shipped files that the model can use."""
    return [own for kind in KINDS for _, own in heat_rows(kind, model_of) if own is not None]


def leave_out(rows: Sequence[tuple[PublishedRow, HeatRow]]) -> list[Judged]:
    """Each device predicted by a fit on the rows of all the others, energy and runs together."""
    judged = []
    for device in dict.fromkeys(own.device for _, own in rows):
        terms = fit([own for _, own in rows if not _same(own.device, device)])
        for row, own in rows:
            said = own.said(terms) if own.device == device else None
            if said is not None:
                judged.append(Judged(row, said.mid, said.low, said.high))
    return judged


def _name_words(text: str) -> list[str]:
    """Words of a device's or chip's name that tell it from others."""
    plain = re.sub(r"\(.*?\)|\b(apple|geforce|radeon|nvidia|amd|intel|for galaxy|class)\b|[-,]", " ", text.lower())
    return plain.split()


def _same(one: str, other: str) -> bool:
    """One device under two names, such as a MacBook with and without its memory said."""
    words = set(_name_words(one)), set(_name_words(other))
    return one == other or words[0] <= words[1] or words[1] <= words[0]


GROUPS: frozenset[str] = frozenset({"energy of a token", "share of speed that is left"})


def left_out() -> list[Judged]:
    """Shipped rows of energy and heat, each device left out of the fit."""
    pairs = [pair for kind in KINDS for pair in heat_rows(kind, model_of)]
    return leave_out([(row, own) for row, own in pairs if own is not None and not row.reason])
