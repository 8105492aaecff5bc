"""Predictions against published rows: errors by group, coverage of intervals, baselines, and the data's own floor.

The error of a row is |predicted / measured - 1|; of a vote, the median of its rows; of a group, median and 90th
percentile of its votes. One vote for each chip x api x model x quant: forty tests of one card weigh as one card.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np

from harness.domain.base import Frozen
from harness.predict.coefficients import Coefficients
from harness.predict.interval import interval, scale_of
from harness.predict.seed import (
    constant_decode_tokens_per_s,
    llmfit_decode_tokens_per_s,
    seed_decode_tokens_per_s,
)
from harness.published.rows import Row, is_trusted, predictable

BASELINES: Final[Mapping[str, Callable[[float, float], float]]] = {
    "bandwidth / bytes": seed_decode_tokens_per_s,
    "0.55 x": llmfit_decode_tokens_per_s,
    "0.72 x": constant_decode_tokens_per_s,
}


class Score(Frozen, frozen=True, kw_only=True):
    """Errors of one set of votes.

    Attributes:
        votes_count: Votes.
        rows_count: Rows behind them.
        median_ratio: Median error.
        p90_ratio: 90th percentile.
        coverage_ratio: Share of rows inside their 90 % interval, one vote each.
        width_ratio: Median of high / low of the intervals.
        baselines: Median and 90th percentile of each baseline; decode only.
        best_constant: Share of bandwidth (prefill: of the matrix peak) with the least median error, and that error:
            tuned on the rows it is judged by.
    """

    votes_count: int
    rows_count: int
    median_ratio: float
    p90_ratio: float
    coverage_ratio: float
    width_ratio: float
    baselines: dict[str, tuple[float, float]] = {}
    best_constant: tuple[float, float] | None = None


class Miss(Frozen, frozen=True, kw_only=True):
    """A row far from its prediction, with the likely reason."""

    line: int
    chip: str
    api: str
    model: str
    quant: str
    test: str
    measured_tokens_per_s: float
    predicted_tokens_per_s: float
    reason: str


class Report(Frozen, frozen=True, kw_only=True):
    """Outcome of a validation.

    Attributes:
        left_out: How chips were left out of the fits that predicted them; empty for the shipped coefficients.
        rows_count: Rows in the file.
        unpredictable: Rows without a prediction, by reason.
        headline: Dense, llama.cpp class, trust A and B, short context, not excluded by the file.
        groups: By group of rows: trusted and not excluded; and the same of all rows, named ``... (all rows)``.
        tables: ``hardware``, ``api``, ``class``, ``quant``, ``test``, ``runtime``: trusted decode rows split by each;
            ``hardware, prompts``: trusted prefill rows.
        worst: Trusted rows farthest off.
        floor_ratio: Median gap, as a share, between two sources of the same chip, api, model and quant.
        floor_pairs_count: How many such pairs.
    """

    left_out: str
    rows_count: int
    unpredictable: dict[str, int]
    headline: Score | None
    groups: dict[str, Score]
    tables: dict[str, dict[str, Score]]
    worst: tuple[Miss, ...]
    floor_ratio: float | None
    floor_pairs_count: int


class Judged(NamedTuple):
    """A row, its predicted speed and its interval."""

    row: Row
    predicted_tokens_per_s: float
    low_tokens_per_s: float
    high_tokens_per_s: float

    @property
    def error_ratio(self) -> float:
        """|predicted / measured - 1|."""
        return abs(self.predicted_tokens_per_s / self.row.tokens_per_s - 1)

    @property
    def covered(self) -> bool:
        """Whether the measurement lies in the interval."""
        return self.low_tokens_per_s <= self.row.tokens_per_s <= self.high_tokens_per_s


def is_headline(row: Row) -> bool:
    """Dense decode of the llama.cpp class at short context."""
    return row.group == "dense" and is_trusted(row) and not row.excluded and row.machine.runtime == "llama.cpp"


def judge_shipped(rows: Iterable[Row], coefficients: Coefficients) -> list[Judged]:
    """Rows with the predictions of the given coefficients; decode never beyond its roofline."""
    result = []
    for row in predictable(rows):
        ln_s, gradient = row.predicted(coefficients.values)
        spread = coefficients.spread(gradient, row.phase, row.machine)
        result.append(judged(row, ln_s, spread, coefficients.scales))
    return result


def judged(row: Row, ln_s: float, spread: float, scales: Mapping[str, float]) -> Judged:
    """A row with its prediction and the interval that these scales and the expected spread in ln t give."""
    assert row.work is not None
    speed = row.token_count / math.exp(ln_s)
    span = interval(speed, spread * scale_of(scales, row.phase, row.work, row.machine))
    return Judged(row, span.mid, span.low, span.high)


def score(judged: Sequence[Judged]) -> Score | None:
    """Errors of these rows, one vote each; None without any."""
    if not judged:
        return None
    errors = _by_vote(judged, lambda j: j.error_ratio)
    baselines: dict[str, tuple[float, float]] = {}
    best = None
    phases = {j.row.phase for j in judged}
    if phases == {"decode"}:
        for name, formula in BASELINES.items():
            off = _by_vote(judged, partial(_miss_ratio, formula))
            baselines[name] = (float(np.median(off)), float(np.quantile(off, 0.9)))
    if len(phases) == 1:
        promised = np.array(_by_vote(judged, _promised_ratio))
        shares = np.geomspace(0.01, 3, 300)
        middles = np.median(np.abs(shares[:, None] * promised - 1), axis=1)
        best = (float(shares[middles.argmin()]), float(middles.min()))
    return Score(
        votes_count=len(errors),
        rows_count=len(judged),
        median_ratio=float(np.median(errors)),
        p90_ratio=float(np.quantile(errors, 0.9)),
        coverage_ratio=float(np.mean(_by_vote(judged, lambda j: float(j.covered), np.mean))),
        width_ratio=float(np.median(_by_vote(judged, lambda j: j.high_tokens_per_s / j.low_tokens_per_s))),
        baselines=baselines,
        best_constant=best,
    )


def _miss_ratio(formula: Callable[[float, float], float], judged: Judged) -> float:
    """Error of a formula of the file's bytes (of a mixture of experts times active / all parameters) and bandwidth."""
    row = judged.row
    return abs(formula(row.plain_bytes, row.machine.bandwidth_bytes_per_s) / row.tokens_per_s - 1)


def _promised_ratio(judged: Judged) -> float:
    """What the specification promises over what was measured."""
    row = judged.row
    assert row.work is not None
    rate = row.machine.bandwidth_bytes_per_s / row.plain_bytes
    if row.phase == "prefill":
        rate = row.machine.traits.matrix_flops_per_s / (2 * row.work.weight_count)
    return rate / row.tokens_per_s


def _by_vote(
    judged: Sequence[Judged], value: Callable[[Judged], float], join: Callable[..., float] = np.median
) -> list[float]:
    votes: dict[tuple[object, ...], list[float]] = defaultdict(list)
    for item in judged:
        votes[item.row.vote].append(value(item))
    return [float(join(values)) for values in votes.values()]


def report(rows: Sequence[Row], judged: Sequence[Judged], *, left_out: str = "") -> Report:
    """Everything that is printed."""
    reasons: dict[str, int] = defaultdict(int)
    for row in rows:
        if row.work is None:
            reasons[row.reason] += 1
    trusted = [j for j in judged if is_trusted(j.row)]
    groups = {}
    for name in ("dense", "moe", "sub-4-bit", "phone", "deep", "prefill"):
        for label, chosen in ((name, trusted), (f"{name} (all rows)", judged)):
            found = score([j for j in chosen if j.row.group == name])
            if found is not None:
                groups[label] = found
    decode = [j for j in trusted if j.row.phase == "decode"]
    splits: dict[str, Callable[[Row], str]] = {
        "hardware": hardware_of,
        "api": lambda r: r.machine.api,
        "class": lambda r: r.raw.get("device_class", "") or "not stated",
        "quant": lambda r: r.work.quant_class if r.work is not None else "",
        "test": lambda r: r.raw.get("test", ""),
        "runtime": lambda r: r.machine.runtime,
    }
    floor = same_chip_gaps([j.row for j in decode])
    return Report(
        left_out=left_out,
        rows_count=len(rows),
        unpredictable=dict(sorted(reasons.items())),
        headline=score([j for j in judged if is_headline(j.row)]),
        groups=groups,
        tables={name: _split(decode, key) for name, key in splits.items()}
        | {"hardware, prompts": _split([j for j in trusted if j.row.phase == "prefill"], hardware_of)},
        worst=tuple(_miss(j) for j in sorted(trusted, key=lambda j: -abs(_log_error(j)))[:15]),
        floor_ratio=float(np.median(floor)) if floor else None,
        floor_pairs_count=len(floor),
    )


def hardware_of(row: Row) -> str:
    """Class of hardware that ran a row; what a row says of its device tells CPUs further apart than their names do."""
    kind, name = row.raw.get("device_class", ""), row.machine.hardware
    if row.machine.side != "cpu" or row.machine.phone:
        return name
    return "board" if kind in {"sbc", "edge"} else "server CPU" if kind.startswith("server") else name


def _split(judged: Sequence[Judged], key: Callable[[Row], str]) -> dict[str, Score]:
    parts: dict[str, list[Judged]] = defaultdict(list)
    for item in judged:
        parts[key(item.row)].append(item)
    scores = {name: score(part) for name, part in parts.items()}
    return dict(sorted(((n, s) for n, s in scores.items() if s is not None), key=lambda x: (-x[1].votes_count, x[0])))


def same_chip_gaps(rows: Iterable[Row]) -> list[float]:
    """Gaps |a / b - 1| between medians of two sources for the same chip, api, model, quant and test."""
    speeds: dict[tuple[str, ...], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        key = (row.chip, row.machine.api, row.raw["model"].lower(), row.raw["quant"].lower(), row.group)
        speeds[key][row.raw.get("source", "")].append(row.tokens_per_s)
    gaps = []
    for by_source in speeds.values():
        middles = sorted(float(np.median(v)) for v in by_source.values())
        gaps += [high / low - 1 for low, high in pairwise(middles)]
    return gaps


def _log_error(judged: Judged) -> float:
    return math.log(judged.predicted_tokens_per_s / judged.row.tokens_per_s)


def _miss(judged: Judged) -> Miss:
    row = judged.row
    return Miss(
        line=row.line,
        **row.described,
        predicted_tokens_per_s=judged.predicted_tokens_per_s,
        reason=_likely_reason(judged),
    )


def _likely_reason(judged: Judged) -> str:
    row, error = judged.row, _log_error(judged)
    assert row.work is not None
    for holds, word in (
        (row.raw.get("bw_confidence", "") in {"assumed", "unknown"}, "bandwidth is assumed"),
        (
            row.work.weight_bytes * row.tokens_per_s > row.machine.bandwidth_bytes_per_s and row.phase == "decode",
            "beyond the roofline: bytes or bandwidth are wrong",
        ),
        (row.work.moe, "mixture of experts: routing and kernels vary by build"),
        (row.work.quant_class in {"iq", "ternary", "q2k", "q3k"}, "bound by dequantisation"),
        (row.machine.phone, "phone: throttling, drivers"),
        (row.machine.api == "cpu" and error > 0, "CPU: fewer threads, or fewer channels filled, than assumed"),
        (row.machine.runtime != "llama.cpp", "another runtime"),
        (not row.machine.traits.known_peak, "peak unknown"),
        (not row.machine.traits.family, "family unknown"),
        (row.work.weight_bytes < 1e9, "small model: overhead decides"),
        (error > 0, "slower than its relatives: build, drivers or host"),
    ):
        if holds:
            return word
    return "faster than its relatives: newer build"
