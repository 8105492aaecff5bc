"""One score for everything that was published: errors by vote, intervals' coverage and width, the best constant.

The error of a row is |predicted / measured - 1|; of a vote, the median of its rows; of a group, median and
90th percentile of its votes. One vote for each chip x api x model x quant: forty tests of one card weigh as
one card.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean, median
from typing import Final, NamedTuple

import numpy as np

from harness.core.base import Frozen
from harness.core.grouping import grouped
from harness.speed.coefficients import Coefficients
from harness.speed.interval import interval
from harness.speed.published.rows import PublishedRow, is_trusted, predictable

GROUPS: Final = ("dense", "moe", "sub-4-bit", "phone", "deep", "prefill")
"""Of rows of speed, in the order that they are shown in; other kinds of row follow."""
MISSED: Final = 0.1
"""Share of measurements that a 90 % interval may miss."""


class VoteErrors(Frozen):
    """Errors of one set of votes.

    Attributes:
        votes_count: Votes.
        rows_count: Rows behind them.
        median_ratio: Median error.
        p90_ratio: 90th percentile.
        within_ratio: Share within a factor 1.3.
        coverage_ratio: Share of rows inside their 90 % interval, one vote each; None where nothing states
            intervals.
        width_ratio: Median of high / low of the intervals.
        interval_score: Mean of w + (2 / 0.1) x what a measurement lies outside, in ln, w the width: less is
            better, and neither a wide interval nor a narrow one that misses gets a good one (Gneiting &
            Raftery 2007, section 6.2).
        best_constant: Share of what the data sheet promises with the least median error, and that error:
            tuned on the rows it is judged by.
    """

    votes_count: int
    rows_count: int
    median_ratio: float
    p90_ratio: float
    within_ratio: float
    coverage_ratio: float | None = None
    width_ratio: float | None = None
    interval_score: float | None = None
    best_constant: tuple[float, float] | None = None


class Report(Frozen):
    """Outcome of a validation.

    Attributes:
        left_out: What the fit had not seen of each row; empty for the shipped coefficients.
        rows_count: Rows of the file.
        unpredictable: Rows without a prediction, by reason.
        groups: By group of rows: trusted and not excluded; and the same of all rows, named ``... (all
            rows)``.
        tables: ``hardware``: trusted decode rows by it; ``hardware, prompts``: trusted prompts.
        worst: Trusted rows farthest off, in the row's unit: line, chip, api, model, quant, test, measured,
            predicted.
    """

    left_out: str
    rows_count: int
    unpredictable: dict[str, int]
    groups: dict[str, VoteErrors]
    tables: dict[str, dict[str, VoteErrors]]
    worst: tuple[dict[str, str | float], ...]


class Judged(NamedTuple):
    """A row with what was said of it; ``low`` and ``high`` are 0 where nothing stated an interval."""

    row: PublishedRow
    predicted: float
    low: float = 0.0
    high: float = 0.0

    @property
    def error_ratio(self) -> float:
        """|predicted / measured - 1|."""
        return abs(self.predicted / self.row.measured - 1)

    @property
    def covered(self) -> bool:
        """Whether the measurement lies in the interval."""
        return self.low <= self.row.measured <= self.high

    @property
    def interval_score(self) -> float:
        """Of the interval, in ln."""
        ln, low, high = map(math.log, (self.row.measured, self.low, self.high))
        return high - low + 2 / MISSED * (max(low - ln, 0.0) + max(ln - high, 0.0))


def judge_shipped(rows: Iterable[PublishedRow], coefficients: Coefficients) -> list[Judged]:
    """Rows with the predictions of the given coefficients.

    Rows of other kinds with those of their own laws.
    """
    result = []
    for row in predictable(rows):
        said = None
        if row.law is not None:
            said = row.law()
        if row.work is not None and row.law is None:
            ln_s, gradient = row.predicted(coefficients.values)
            result.append(
                judged(row, ln_s, coefficients.half_width(gradient, row.phase, row.work, row.machine))
            )
        elif said is not None:
            result.append(Judged(row, said.mid, said.low, said.high))
    return result


def judged(row: PublishedRow, ln_s: float, half_width: float) -> Judged:
    """A row of speed with its prediction, and an interval of this half-width in ln."""
    span = interval(row.token_count / math.exp(ln_s), half_width)
    return Judged(row, span.mid, span.low, span.high)


def score(judged: Sequence[Judged]) -> VoteErrors | None:
    """Errors of these rows with one vote for each; None where there is no row."""
    if not judged:
        return None
    by_vote = grouped(judged, lambda one: one.row.vote)

    def votes(value: Callable[[Judged], float], join: Callable[..., float] = median) -> list[float]:
        return [join([value(item) for item in items]) for items in by_vote.values()]

    errors = votes(lambda j: j.error_ratio)
    best = None
    if all(j.row.promised for j in judged):
        promised = np.array(votes(lambda j: j.row.promised / j.row.measured))
        shares = np.geomspace(0.01, 3, 300)
        middles = np.median(np.abs(shares[:, None] * promised - 1), axis=1)
        best = (float(shares[middles.argmin()]), float(middles.min()))
    spans = all(j.high for j in judged)
    return VoteErrors(
        votes_count=len(errors),
        rows_count=len(judged),
        median_ratio=median(errors),
        p90_ratio=float(np.quantile(errors, 0.9)),
        within_ratio=fmean(votes(lambda j: 1 / 1.3 < j.predicted / j.row.measured < 1.3, fmean)),
        coverage_ratio=fmean(votes(lambda j: j.covered, fmean)) if spans else None,
        width_ratio=median(votes(lambda j: j.high / j.low)) if spans else None,
        interval_score=fmean(votes(lambda j: j.interval_score, fmean)) if spans else None,
        best_constant=best,
    )


def report(rows: Sequence[PublishedRow], judged: Sequence[Judged], *, left_out: str = "") -> Report:
    """Everything that is printed."""
    said = {id(j.row) for j in judged}
    reasons = Counter(row.reason or "left aside" for row in rows if row.work is None and id(row) not in said)
    trusted = [j for j in judged if is_trusted(j.row)]
    names = dict.fromkeys((*GROUPS, *(j.row.group for j in judged)))
    groups = {}
    for name in names:
        for label, chosen in ((name, trusted), (f"{name} (all rows)", judged)):
            found = score([j for j in chosen if j.row.group == name])
            if found is not None:
                groups[label] = found
    decode = [j for j in trusted if j.row.phase == "decode"]
    prompts = [j for j in trusted if j.row.phase == "prefill"]
    tables = {"hardware": _by_hardware(decode), "hardware, prompts": _by_hardware(prompts)}
    worst = sorted(trusted, key=lambda j: -abs(math.log(j.predicted / j.row.measured)))[:15]
    return Report(
        left_out=left_out,
        rows_count=len(rows),
        unpredictable=dict(sorted(reasons.items())),
        groups=groups,
        tables={name: found for name, found in tables.items() if found},
        worst=tuple(
            {"line": j.row.raw.line, **j.row.described, "measured": j.row.measured, "predicted": j.predicted}
            for j in worst
        ),
    )


def hardware_of(row: PublishedRow) -> str:
    """Class of hardware that ran a row.

    What a row says of its device tells CPUs further apart than their names do.
    """
    kind = row.raw.get("device_class", "")
    name = row.machine.hardware
    if row.machine.side != "cpu" or row.machine.phone:
        return name
    if kind in {"sbc", "edge"}:
        return "board"
    if kind.startswith("server"):
        return "server CPU"
    return name


def _by_hardware(judged: Sequence[Judged]) -> dict[str, VoteErrors]:
    """Scores by class of hardware, the one with the most votes first."""
    parts = grouped(judged, lambda one: hardware_of(one.row))
    scores = [(name, found) for name, part in parts.items() if (found := score(part)) is not None]
    return dict(sorted(scores, key=lambda pair: (-pair[1].votes_count, pair[0])))
