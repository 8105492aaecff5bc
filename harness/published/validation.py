"""Predictions against published rows: errors by group, coverage of intervals, baselines, and the data's own floor.

The error of a row is |predicted / measured - 1|; of a vote, the median of its rows; of a group, median and 90th
percentile of its votes. One vote for each chip x api x model x quant: forty tests of one card weigh as one card.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import permutations
from typing import Final, NamedTuple

import numpy as np

from harness.domain.base import Frozen
from harness.predict.coefficients import Coefficients
from harness.predict.interval import interval, scale_of
from harness.published.rows import Row, is_trusted, predictable

BASELINES: Final = {"bandwidth / bytes": 1.0, "0.55 x": 0.55, "0.72 x": 0.72}
"""Shares of bandwidth / bytes that others take for the speed: all of it, as if every byte of the specification arrived;
what llmfit expects (its documentation); the median of published decode measurements, the best constant. The bytes are
the file's, of a mixture of experts times active / all parameters."""


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


class Floor(Frozen, frozen=True, kw_only=True):
    """What two sources of one test differ by: |one / other - 1|, middle and 90th percentile of tests' medians.

    A test is a chip, api and runtime, a model by its weights, bytes and layers, and tokens of the prompt or before it
    within a factor of two.
    """

    tests_count: int
    pairs_count: int
    median_ratio: float
    p90_ratio: float


class Miss(Frozen, frozen=True, kw_only=True):
    """A row far from its prediction."""

    line: int
    chip: str
    api: str
    model: str
    quant: str
    test: str
    measured_tokens_per_s: float
    predicted_tokens_per_s: float


class Report(Frozen, frozen=True, kw_only=True):
    """Outcome of a validation.

    Attributes:
        left_out: How chips were left out of the fits that predicted them; empty for the shipped coefficients.
        rows_count: Rows in the file.
        unpredictable: Rows without a prediction, by reason.
        headline: Dense, llama.cpp class, trust A and B, short context, not excluded by the file.
        groups: By group of rows: trusted and not excluded; and the same of all rows, named ``... (all rows)``.
        tables: ``hardware``, ``api``, ``class``, ``quant``, ``test``, ``runtime``: trusted decode rows split by each;
            ``hardware of experts``; ``hardware, prompts``: trusted prefill rows.
        worst: Trusted rows farthest off.
        floors: What two sources of the same test differ by, by group, and by group and hardware.
    """

    left_out: str
    rows_count: int
    unpredictable: dict[str, int]
    headline: Score | None
    groups: dict[str, Score]
    tables: dict[str, dict[str, Score]]
    worst: tuple[Miss, ...]
    floors: dict[str, Floor]


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
        result.append(judged(row, ln_s, coefficients.spread(gradient, row.phase, row.machine), coefficients.scales))
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
        for name, share in BASELINES.items():
            off = _by_vote(judged, partial(_miss_ratio, share))
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


def _miss_ratio(share: float, judged: Judged) -> float:
    """Error of a constant share of what the specification promises."""
    return abs(share * _promised_ratio(judged) - 1)


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
    reasons = Counter(row.reason for row in rows if row.work is None)
    trusted = [j for j in judged if is_trusted(j.row)]
    groups = {}
    for name in ("dense", "moe", "sub-4-bit", "phone", "deep", "prefill"):
        for label, chosen in ((name, trusted), (f"{name} (all rows)", judged)):
            if (found := score([j for j in chosen if j.row.group == name])) is not None:
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
    return Report(
        left_out=left_out,
        rows_count=len(rows),
        unpredictable=dict(sorted(reasons.items())),
        headline=score([j for j in judged if is_headline(j.row)]),
        groups=groups,
        tables={name: _split(decode, key) for name, key in splits.items()}
        | {"hardware of experts": _split([j for j in decode if j.row.group == "moe"], hardware_of)}
        | {"hardware, prompts": _split([j for j in trusted if j.row.phase == "prefill"], hardware_of)},
        worst=tuple(
            Miss(line=j.row.line, **j.row.described, predicted_tokens_per_s=j.predicted_tokens_per_s)
            for j in sorted(trusted, key=lambda j: -abs(math.log(j.predicted_tokens_per_s / j.row.tokens_per_s)))[:15]
        ),
        floors=floors_of([j.row for j in trusted]) | floors_of([j.row for j in judged], " (all rows)"),
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


def floors_of(rows: Iterable[Row], label: str = "") -> dict[str, Floor]:
    """What two sources of the same test differ by, by group and by group and hardware, each name with ``label``."""
    speeds: dict[tuple[object, ...], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in predictable(rows):
        assert row.work is not None
        work, threads = row.work, row.machine.traits.core_count if row.machine.side == "cpu" else 0
        model = f"{work.weight_count:.2g} {work.weight_bytes:.2g} {work.layer_count}"
        tokens = row.prompt.tokens if row.phase == "prefill" else row.depth_tokens
        test = round(math.log2(1 + tokens / 1024))
        key = (row.group, hardware_of(row), row.chip, row.machine.api, row.machine.runtime, threads, model, test)
        speeds[key][row.source].append(row.tokens_per_s)
    gaps: dict[str, list[list[float]]] = defaultdict(list)
    for (group, hardware, *_), by_source in speeds.items():
        middles = [float(np.median(found)) for found in by_source.values()]
        if pairs := [abs(one / other - 1) for one, other in permutations(middles, 2)]:
            gaps[f"{group}{label}"].append(pairs)
            gaps[f"{group}{label}, {hardware}"].append(pairs)
    floors = {}
    for name, tests in sorted(gaps.items()):
        middle, most = np.quantile([np.median(pairs) for pairs in tests], (0.5, 0.9))
        pairs_count = sum(map(len, tests)) // 2
        floors[name] = Floor(
            tests_count=len(tests), pairs_count=pairs_count, median_ratio=float(middle), p90_ratio=float(most)
        )
    return floors
