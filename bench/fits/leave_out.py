"""Errors on what a fit has not seen: chips, sources, both at once, families, runtimes, or all that came later."""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.fits import fitting
from bench.fits.order import ordered
from bench.fits.scales import class_scales
from bench.fits.teaching import setup_of
from harness.speed.coefficients import Coefficients
from harness.speed.interval import scale_classes, scale_of
from harness.speed.published.errors_of_rows import Judged, judged
from harness.speed.published.posterior import own_square
from harness.speed.published.rows import PublishedRow, is_trusted, predictable

Array = NDArray[np.float64]
Numbers = NDArray[np.int64]

GROUPS: Final[dict[str, Callable[[PublishedRow], str]]] = {
    "chip": lambda row: row.chip,
    "source": lambda row: row.source,
    "family": lambda row: f"{row.machine.traits.family}|{row.machine.side}",
    "runtime": lambda row: row.machine.runtime,
}
"""What is left out of a fit, by the word that asks for it; ``chip+source`` leaves out both of a row at once."""
CALIBRATED_BY: Final = ("chip+source", "source")
"""What intervals are calibrated on: chips that nobody knows, and chips that others know."""
LATER_RATIO: Final = 0.3
"""Share of the rows, the latest, that ``time`` leaves out."""
CALIBRATION_FOLDS: Final = 10
"""Parts of the groups; the intervals of one use the residuals of the others alone."""
LEAST_MODELS: Final = 3
"""Models that a chip must have been measured with to be judged by ``given``."""


class Whole:
    """Predictable rows, the fit on all of them, its spread, and what it was off by without chips and sources."""

    def __init__(self, rows: list[PublishedRow], problem: fitting.Problem, fit: fitting.Fit) -> None:
        self.rows, self.problem, self.fit = rows, problem, fit
        self.spread = fitting.spread_of(problem, fit)

    @cached_property
    def unseen(self) -> "list[Unseen]":
        """What intervals are calibrated on."""
        return [left_out(self, by) for by in CALIBRATED_BY]

    @cached_property
    def calibration(self) -> "Calibration":
        """The same as misses by class."""
        return calibration(self, self.unseen)


class Unseen(NamedTuple):
    """Rows (``at`` their numbers) by fits that had not seen them.

    Attributes:
        ln_s: Ln of the seconds, [rows].
        spread: What the fit expected to be off by, [rows].
        known: Whether other rows of the chip on its api were left, [rows].
    """

    at: Numbers
    ln_s: Array
    spread: Array
    known: NDArray[np.bool_]


def fitted(rows: Sequence[PublishedRow]) -> Whole:
    """The fit on all predictable rows."""
    known = predictable(rows)
    problem = fitting.problem_of(known)
    return Whole(known, problem, fitting.fit(problem))


def _sets(rows: Sequence[PublishedRow], by: str) -> Iterator[tuple[Numbers, Numbers]]:
    """Numbers of rows that are judged together, and of those left out for them."""
    names = [np.array([GROUPS[word](row) for row in rows]) for word in by.split("+")]
    for key in sorted(set(zip(*(name.tolist() for name in names), strict=True))):
        each = [name == own for name, own in zip(names, key, strict=True)]
        yield np.flatnonzero(np.all(each, axis=0)), np.flatnonzero(np.any(each, axis=0))


def left_out(whole: Whole, by: str) -> Unseen:
    """Each row by a fit without the rows of its name, or of its names."""
    count = len(whole.rows)
    ln_s, spread, known = np.zeros(count), np.ones(count), np.zeros(count, bool)
    machines = np.array([f"{row.chip}|{row.machine.api}" for row in whole.rows])
    all_of = Counter(machines.tolist())
    for asked, out in _sets(whole.rows, by):
        without = fitting.taken_out(whole.fit, whole.spread, out, np.searchsorted(out, asked))
        ln_s[asked] = whole.problem.target[asked] - without.off
        variance = np.diag(without.covariance)
        spread[asked] = np.sqrt(np.maximum(variance, 0.0) + whole.fit.noise[asked] ** 2)
        gone = Counter(machines[out].tolist())
        known[asked] = [gone[name] < all_of[name] for name in machines[asked].tolist()]
    return Unseen(np.arange(count), ln_s, spread, known)


class Calibration(NamedTuple):
    """What intervals are calibrated on: misses of trusted rows in units of the spread, with their classes and votes."""

    at: Numbers
    classes: list[tuple[str, ...]]
    sources: list[str]
    misses: Array
    weights: Array

    def scales(self, keep: NDArray[np.bool_]) -> dict[str, float]:
        """What the expected spread of the rows marked is to be multiplied with, by phase and class."""
        on = np.flatnonzero(keep[self.at])
        classes, sources = [self.classes[i] for i in on], [self.sources[i] for i in on]
        found = class_scales(classes, sources, self.misses[on], self.weights[on])
        return {str(key): round(value, 3) for key, value in found.items()}


def calibration(whole: Whole, unseen: Sequence[Unseen]) -> Calibration:
    """From rows that fits had not seen; all of them where none is trusted."""
    trusted = np.array([is_trusted(row) and not setup_of(row) for row in whole.rows])
    wanted = trusted if trusted.any() else ~trusted
    listed = [(one, i) for one in unseen for i in np.flatnonzero(wanted[one.at])]
    rows = [whole.rows[one.at[i]] for one, i in listed]
    known = [bool(one.known[i]) for one, i in listed]
    classes = [scale_classes(r.phase, r.work, r.machine, known=k) for r, k in zip(rows, known, strict=True) if r.work]
    misses = [abs(row.ln_s - one.ln_s[i]) / one.spread[i] for row, (one, i) in zip(rows, listed, strict=True)]
    at = np.array([one.at[i] for one, i in listed])
    sources = [row.source for row in rows]
    return Calibration(at, classes, sources, np.array(misses), whole.problem.weight[at])


def leave_out(whole: Whole, by: str) -> list[Judged]:
    """Every row predicted by a fit that saw none of its kind, with an interval from the residuals of others.

    ``by`` is a key of ``GROUPS``, ``chip+source``, or ``time``: the latest ``LATER_RATIO`` by a fit on those before.
    """
    if by == "time":
        return _later(whole)
    unseen = whole.unseen[CALIBRATED_BY.index(by)] if by in CALIBRATED_BY else left_out(whole, by)
    return judge_unseen(whole, unseen, "source" if by == "chip+source" else by)


def judge_unseen(whole: Whole, unseen: Unseen, by: str) -> list[Judged]:
    """Rows that fits had not seen, with intervals from the residuals of rows of other names."""
    fold = folds_of([GROUPS[by](row) for row in whole.rows])
    scales = [whole.calibration.scales(fold != number) for number in range(CALIBRATION_FOLDS)]
    return [_judged(whole, unseen, i, scales[fold[row]]) for i, row in enumerate(unseen.at)]


def _judged(whole: Whole, unseen: Unseen, i: int, scales: dict[str, float]) -> Judged:
    row = whole.rows[unseen.at[i]]
    assert row.work is not None
    scale = scale_of(scales, row.phase, row.work, row.machine, known=bool(unseen.known[i]))
    return judged(row, float(unseen.ln_s[i]), float(unseen.spread[i]) * scale)


def _later(whole: Whole) -> list[Judged]:
    """The latest rows by a fit on those before; their intervals by what such a fit of the past missed of its future."""
    years = np.array([row.machine.build_year for row in whole.rows])
    order = np.sort(years)
    cut = order[int((1 - LATER_RATIO) * len(order))]
    past = order[int((1 - LATER_RATIO) * (years < cut).sum())]
    before, after = (_ahead(whole, years, year) for year in (past, cut))
    scales = calibration(whole, [before]).scales(years < cut)
    return [_judged(whole, after, i, scales) for i in range(len(after.at))]


def _ahead(whole: Whole, years: Array, cut: float) -> Unseen:
    """Rows from a year on by a fit on all before."""
    later = years >= cut
    early = fitting.fit(whole.problem, ~later)
    at = np.flatnonzero(later)
    part = fitting.part_of(whole.problem, at)
    ln_s, jacobian = fitting.model(part, early.theta)
    ln_s = ln_s - fitting.habits(part, early.theta)
    variance = np.einsum("ij,ij->i", jacobian @ early.covariance, jacobian.toarray())
    seen = {(row.chip, row.machine.api) for row, is_later in zip(whole.rows, later, strict=True) if not is_later}
    known = np.array([(whole.rows[i].chip, whole.rows[i].machine.api) in seen for i in at])
    return Unseen(at, ln_s, np.sqrt(variance + early.noise[at] ** 2), known)


def fit_all(whole: Whole, source: str) -> Coefficients:
    """Coefficients of a fit on all rows; its intervals by the errors on sources, and on chips and sources, left out."""
    scales = whole.calibration.scales(np.ones(len(whole.rows), bool))
    belief = fitting.coefficients_of(whole.problem, whole.fit, whole.rows, source, scales)
    return ordered(belief, whole.rows)


def folds_of(names: Sequence[str]) -> Numbers:
    """Number of each row's part: names, the most frequent first, each to the smallest part."""
    count = Counter(names)
    sizes, part = [0] * CALIBRATION_FOLDS, {}
    for name in sorted(count, key=lambda one: (-count[one], one)):
        part[name] = sizes.index(min(sizes))
        sizes[part[name]] += count[name]
    return np.array([part[name] for name in names])


def leave_out_given(whole: Whole, count: int, seed: int = 0) -> list[Judged]:
    """Each chip's rows by a fit that saw no other row of it than some; at least ``LEAST_MODELS`` models a chip.

    All of a machine's rows are taken out of the fit, as ``fitting.taken_out`` does it, and the chosen ones are told to
    what remains, as ``posterior`` does it: with C the covariance of ln t of its rows then, the rest moves by
    C_rest,given (C_given,given + n^2)^-1 of what the given ones are off.

    ``count`` are given of each chip and api: decode of a model in a quantisation, and its prompt where there is one.
    """
    own_squares = np.array([own_square(key) for key in whole.problem.keys])
    machines = np.array([f"{row.chip}|{row.machine.api}" for row in whole.rows])
    parts = []
    for name in sorted(set(machines)):
        of_machine = np.flatnonzero(machines == name)
        known = [i for i, row in enumerate(of_machine) if is_trusted(whole.rows[row])]
        trusted = [whole.rows[of_machine[i]] for i in known]
        given = np.array([known[i] for i in _chosen(trusted, count, random.Random(f"{seed} {name}"))], dtype=np.int64)
        rest = np.setdiff1d(np.arange(len(of_machine)), given)
        if len({row.raw["model"] for row in trusted}) < LEAST_MODELS or not given.size or not rest.size:
            continue
        part = fitting.part_of(whole.problem, of_machine)
        slopes = fitting.model(part, whole.fit.theta)[1].toarray()
        without = fitting.taken_out(whole.fit, whole.spread, of_machine)
        off, seen = without.off, without.covariance
        wide = seen + (slopes * own_squares) @ slopes.T
        noise_squares = whole.fit.noise[of_machine] ** 2
        of_given, to_rest = np.ix_(given, given), np.ix_(given, rest)
        noise = np.diag(noise_squares[given])
        moved = wide[to_rest].T @ np.linalg.solve(wide[of_given] + noise, off[given])
        learnt = np.einsum("ij,ij->j", seen[to_rest], np.linalg.solve(seen[of_given] + noise, seen[to_rest]))
        spread = np.sqrt(np.maximum(np.diag(seen)[rest] - learnt, 0.0) + noise_squares[rest])
        parts.append((of_machine[rest], part.target[rest] - off[rest] + moved, spread))
    at, ln_s, spreads = (np.concatenate(values) for values in zip(*parts, strict=True))
    return judge_unseen(whole, Unseen(at, ln_s, spreads, np.ones(len(at), bool)), "chip")


def _chosen(rows: Sequence[PublishedRow], count: int, chance: random.Random) -> list[int]:
    """Numbers of the rows given: one of decode and one of prefill of each of ``count`` models in a quantisation."""
    pairs = sorted({(r.raw["model"], r.raw["quant"]) for r in rows if r.phase == "decode"})
    result = []
    for pair in chance.sample(pairs, min(count, len(pairs))):
        for phase in ("decode", "prefill"):
            same = [i for i, r in enumerate(rows) if (r.raw["model"], r.raw["quant"], r.phase) == (*pair, phase)]
            result += [chance.choice(same)] if same else []
    return result
