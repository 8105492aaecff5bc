"""Chips of a series in their order: where few rows put a faster chip below a slower one, both get what they say.

Each chip by one api has a level in the law, w, that counts in decode and prompts. Of neighbours in a series that are
out of order the levels move until both are as fast, each by its share of their two variances: pool adjacent violators
(Barlow et al. 1972, "Statistical inference under order restrictions"). Two sources that measured both chips, and found
the later slower each, are believed instead.
"""

import math
import tomllib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Final, NamedTuple

import numpy as np

from bench.fits.teaching import teaches
from harness.hardware.traits import PHONE_THREADS, chip_key, traits_of
from harness.speed.coefficients import Coefficient, Coefficients, engine_key
from harness.speed.decode import decode_seconds
from harness.speed.published.rows import PublishedRow
from harness.speed.work import Machine, Work

WORKS: Final = (
    Work(0.10e9, 0.135e9, 30, 2.9e6, "q4k", type_name="Q4_K_M"),
    Work(0.40e9, 0.6e9, 28, 7.3e6, "q4k", type_name="Q4_K_M"),
    Work(2.0e9, 3.2e9, 28, 7.3e6, "q4k", type_name="Q4_K_M"),
    Work(4.7e9, 7.5e9, 32, 8.4e6, "q4k", type_name="Q4_K_M"),
)
"""A token of a model of 135M, 0.6B, 3B and 8B in Q4_K_M: of the first the launches are most of the time."""
ROUNDS: Final = 40
ENOUGH_SOURCES: Final = 2


class Pair(NamedTuple):
    """Two that follow one another in a series."""

    before: Machine
    after: Machine


def pairs() -> list[Pair]:
    """Neighbours of all series."""
    found = []
    for series in tomllib.loads(Path(__file__).with_name("series.toml").read_text("utf-8"))["series"]:
        machines = [_machine(name, gb_s, series) for name, gb_s in series["chips"]]
        found += [Pair(before, after) for before, after in pairwise(machines)]
    return found


def _machine(name: str, gb_s: float, series: dict[str, object]) -> Machine:
    api = str(series["api"])
    phone = bool(series.get("phone")) or name.startswith("A1") or name.startswith("A2")
    threads = PHONE_THREADS if phone and api == "cpu" else 0
    traits = traits_of(name, api, gb_s * 1e9, threads)
    return Machine(api, gb_s * 1e9, traits, phone=phone and api != "cuda", chip=chip_key(name))


def excess(pair: Pair, belief: Coefficients) -> float:
    """Mean over the works of ln(time of the later / time of the earlier): above 0 out of order."""
    values = belief.values
    each = [decode_seconds(work, pair.after, values).total_s / decode_seconds(work, pair.before, values).total_s
            for work in WORKS]  # fmt: skip
    return max(math.log(one) for one in each)


def ordered(belief: Coefficients, rows: Sequence[PublishedRow]) -> Coefficients:
    """The same with the levels of chips in the order of their series."""
    settled = [pair for pair in pairs() if not _said_by_sources(pair, rows)]
    for _ in range(ROUNDS):
        moved = False
        for pair in settled:
            over = excess(pair, belief)
            if over > 1e-4:
                belief = pooled(pair, over, belief)
                moved = True
        if not moved:
            break
    return belief


def pooled(pair: Pair, over: float, belief: Coefficients) -> Coefficients:
    """Both as fast, each moved by its share of their variances."""
    keys = [f"w/chip {engine_key(machine)}" for machine in pair]
    squares = np.diag(belief.covariance_of(keys))
    terms = dict(belief.terms)
    for key, square, sign in zip(keys, squares, (1, -1), strict=True):
        old = terms.get(key, Coefficient(value=0.0, spread=float(square**0.5)))
        terms[key] = old.replace(value=round(old.value + sign * over * square / sum(squares), 4))
    return belief.replace(terms=terms)


def _said_by_sources(pair: Pair, rows: Sequence[PublishedRow]) -> bool:
    """Whether enough sources decoded the same model on both, and the later was slower."""
    by_test: dict[tuple[str, ...], dict[int, list[float]]] = {}
    for row in rows:
        for at, machine in enumerate(pair):
            if row.phase == "decode" and teaches(row) and engine_key(row.machine) == engine_key(machine):
                test = (row.source, row.machine.runtime, row.raw["model"], row.raw["quant"], row.raw["test"])
                by_test.setdefault(test, {}).setdefault(at, []).append(row.ln_s)
    slower: dict[str, list[bool]] = {}
    for (source, *_), both in by_test.items():
        if len(both) == len(pair):
            slower.setdefault(source, []).append(fmean(both[1]) > fmean(both[0]))
    return sum(all(found) for found in slower.values()) >= ENOUGH_SOURCES
