"""Fit of the few terms of the law of placement, cards predicted without their own rows, and sweeps of placements."""

import math
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.rows.placements import PlacedRow, placed_rows
from harness.speed.coefficients import shipped
from harness.speed.decode import Terms as Seconds
from harness.speed.fitted import Fitted
from harness.speed.passes import Part, Pass, PlacementTerms
from harness.speed.published.errors_of_rows import Judged, judge_shipped
from harness.speed.published.row_work import ModelOf
from harness.speed.published.rows import TRUSTED, PublishedRow

Array = NDArray[np.float64]
GROUPS: Final = frozenset({"split placement, decode", "split placement, prefill"})
FOLDS: Final = 10
ROWS_OF_A_VOTE: Final = 3
NOISE: Final = 0.15
"""Spread of one measurement in ln t, with what a row does not tell of its host."""


Case = tuple[PublishedRow, PlacedRow]
"""A row of trust A or B, and what the laws see of it."""


def cases(model_of: ModelOf) -> list[Case]:
    """Published splits that count."""
    pairs = placed_rows(None, model_of)
    return [(row, placed) for row, placed in pairs if placed is not None and row.raw.get("trust", "") in TRUSTED]


def left_out(model_of: ModelOf) -> list[Judged]:
    """Published splits, each tenth of the cards predicted by terms fitted without any row of these cards."""
    listed = cases(model_of)
    chips = sorted({row.chip for row, _ in listed})
    judged = []
    for fold in range(FOLDS):
        out = set(chips[fold::FOLDS])
        terms = fit_terms([case for case in listed if case[0].chip not in out])
        rows = [row._replace(law=partial(placed.law, terms)) for row, placed in listed if row.chip in out]
        judged += judge_shipped(rows, shipped())
    return judged


def sweep_of(case: Case) -> tuple[str, ...]:
    """What stays the same while a sweep moves layers or experts."""
    raw, phase = case[0].raw, case[1].phase
    same = ("device", "model", "quant", "kv_type", "n_ubatch", "n_threads", "runtime", "context_depth", "backend")
    return (phase, raw.get("test", ""), *(raw.get(name, "") for name in same))


def sweeps_found(listed: Sequence[Case], terms: PlacementTerms) -> list[bool]:
    """Of each sweep of three placements or more, whether the law finds its best within a step, or 0.9 of its speed."""
    sweeps: dict[tuple[str, ...], dict[float, list[Case]]] = {}
    for case in listed:
        sweeps.setdefault(sweep_of(case), {}).setdefault(round(case[1].step, 4), []).append(case)
    answers = []
    for steps in sweeps.values():
        if len(steps) < 3:
            continue
        order = sorted(steps)
        measured = [float(np.median([row.measured for row, _ in steps[s]])) for s in order]
        predicted = [float(np.median([placed.tokens_per_s(terms) for _, placed in steps[s]])) for s in order]
        best, chosen = int(np.argmax(measured)), int(np.argmax(predicted))
        answers.append(abs(best - chosen) <= 1 or measured[chosen] >= 0.9 * measured[best])
    return answers


PRIOR: Final = PlacementTerms(
    gpu=0.0,
    cpu=0.0,
    experts=0.0,
    crossing=math.log(60e-6),
    prefill=0.0,
    link=math.log(0.7),
    ik=0.0,
    memory=math.log(0.35),
    cpu_prefill=0.0,
)
_PRIOR_SD: Final = PlacementTerms(
    gpu=0.3, cpu=0.3, experts=0.3, crossing=0.7, prefill=0.3, link=0.1, ik=0.3, memory=0.1, cpu_prefill=0.3
)


class _Once(Fitted):
    """An engine by the laws that computes each part once: terms of the link change what stands beside it."""

    def seconds(self, parts: Sequence[Part], asked: Pass) -> Seconds:
        key = (self.machine, asked, *((part.work, part.attention_flops) for part in parts))
        if key not in _SECONDS:
            _SECONDS[key] = super().seconds(parts, asked)
        return _SECONDS[key]


_SECONDS: Final[dict[object, Seconds]] = {}


def fit_terms(listed: Sequence[Case]) -> PlacementTerms:
    """Terms of the law: robust least squares in ln t, pulled to the priors; of each vote a few rows, at even steps.

    A vote (GPU x model x quantisation x phase) weighs 1 whatever its rows, a GPU no more than the root of its votes.
    """
    from scipy.optimize import least_squares

    by_vote: dict[tuple[str, ...], list[Case]] = {}
    for case in listed:
        by_vote.setdefault(case[0].vote, []).append(case)
    few = [case for own in by_vote.values() for case in own[:: -(-len(own) // ROWS_OF_A_VOTE)]]
    if not few:
        return PRIOR
    votes = [row.vote for row, _ in few]
    rows_in, votes_in = Counter(votes), Counter((vote[1], vote[-1]) for vote in by_vote)
    weight = np.array([1 / rows_in[v] / np.sqrt(votes_in[v[1], v[-1]]) for v in votes])
    measured = np.log([row.measured for row, _ in few])
    prior, sd = np.array(PRIOR), np.array(_PRIOR_SD)
    once = partial(_Once, belief=shipped())

    def residuals(theta: Array) -> Array:
        terms = PlacementTerms(*theta.tolist())
        error = (measured - np.log([placed.tokens_per_s(terms, once) for _, placed in few])) / NOISE
        robust = np.sign(error) * np.sqrt(2 * (np.sqrt(1 + error**2) - 1))
        pulled: Array = np.concatenate([np.sqrt(weight) * robust, (theta - prior) / sd])
        return pulled

    return PlacementTerms(*least_squares(residuals, np.array(PlacementTerms()), diff_step=1e-4, ftol=1e-4).x.tolist())
