"""The figures of a run: a row each, with its unit, what it is read of, which way is better, and how much runs differ.

Comparison, gates, reports and the pytest plug-in all read figures here; none is stored. A new figure is a row
more.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Annotated, Any, Final, NamedTuple

import numpy as np
from msgspec import Meta

from harness.core.record import MemoryUse, ModelIdentity, Phase, Record, Sample
from harness.core.result import Generation, Load, Quality, Score, Soak, Speculation, Stream, SystemResult

RUN_SPREAD: Final = 0.10
"""Of a speed or a time: two grids of one build on one machine, four hours apart, differ by 14 % between two
runs (93 pairs of ``reports/check``), so that one run has a tenth."""
_LOAD_SPREAD: Final = 0.20
"""Likewise of loading (28 pairs): storage and page cache."""
_MEMORY_SPREAD: Final = 0.003
"""Likewise of a peak (31 pairs: at most 0.9 %)."""
_ROUNDING_SPREAD: Final = 0.001
"""Likewise of a perplexity: kernels of the same weights round activations otherwise, by up to 0.2 %."""

Values = Sequence[float | None]


class Metric(NamedTuple):
    """One figure.

    Attributes:
        title: What it is called on a screen.
        of: What it is read of: samples of a phase, or a type that stands in a record (its memory, model or
            result).
        read: Gives its values, one a sample; None where something was not measured.
        spread: Standard deviation of ln(value) from run to run of one build on one machine, at most: believed
            until runs tell it themselves. 0: runs do not differ.
    """

    name: str
    title: str
    unit: str
    of: Phase | type
    read: Callable[[Any], Values]
    spread: float = RUN_SPREAD
    higher_is_better: bool = False

    @property
    def is_of_tokens(self) -> bool:
        """Whether it is a time of single tokens, or their rate."""
        return self.of == "decode" and self.name != "joules_per_token"

    @property
    def words(self) -> tuple[str, str]:
        """What a smaller and a greater value are called."""
        if self.unit == "s":
            return "faster", "slower"
        if self.unit.endswith("/s"):
            return "slower", "faster"
        return "less", "more"


def _rate(samples: Sequence[Sample]) -> Values:
    return [sample.token_count / sample.duration_s for sample in samples if sample.duration_s > 0]


def _durations(samples: Sequence[Sample]) -> Values:
    return [sample.duration_s for sample in samples]


def _latencies(samples: Sequence[Sample], *, share: float) -> list[float]:
    return [float(np.quantile(sample.token_times_s, share)) for sample in samples if sample.token_times_s]


def _joules(samples: Sequence[Sample]) -> Values:
    return [
        sample.energy_joules / sample.token_count
        for sample in samples
        if sample.energy_joules and sample.token_count
    ]


def _operation(samples: Sequence[Sample], *, share: float) -> Values:
    """Quantile over the calls of each operation: one value a label, since operations are not comparable."""
    by_label: dict[str, list[float]] = {}
    for sample in samples:
        by_label.setdefault(sample.label, []).append(sample.duration_s / max(1, sample.token_count))
    return [float(np.quantile(values, share)) for values in by_label.values()]


def _size(name: str) -> Callable[[object], Values]:
    """A size in bytes; 0 of a process or a file is one that nobody measured."""
    return lambda part: [float(getattr(part, name)) if getattr(part, name) else None]


def _perplexity(record: Record) -> Values:
    result = record.result
    if isinstance(result, Quality):
        return [result.score.perplexity]
    if isinstance(result, Generation) and result.token_nll:
        return [float(np.exp(np.mean(result.token_nll)))]
    return []


def _hottest(soak: Soak) -> Values:
    return [max((window.celsius for window in soak.windows if window.celsius), default=None)]


def _best(name: str) -> Callable[[Load], Values]:
    return lambda load: [max((getattr(level, name) for level in load.levels), default=None)]


def _scored(name: str, *, more_is_better: bool = True) -> Callable[[Sequence[Score]], Values]:
    """Values of a system's score, which must say itself that more of it, or less, is better."""
    return lambda scores: [
        score.value for score in scores if score.name == name and score.more_is_better is more_is_better
    ]


_ROWS: Final = (
    Metric("decode_tokens_per_s", "writing", "tokens/s", "decode", _rate, higher_is_better=True),
    Metric("prefill_tokens_per_s", "reading", "tokens/s", "prefill", _rate, higher_is_better=True),
    Metric("ttft_s", "first token", "s", "first_token", _durations),
    Metric("itl_p50_s", "time of a token", "s", "decode", partial(_latencies, share=0.5)),
    Metric("itl_p99_s", "slowest tokens", "s", "decode", partial(_latencies, share=0.99)),
    Metric("load_s", "loading", "s", "load", _durations, _LOAD_SPREAD),
    Metric("peak_memory_bytes", "memory", "bytes", MemoryUse, _size("peak_rss_bytes"), _MEMORY_SPREAD),
    Metric(
        "peak_anonymous_bytes",
        "private memory",
        "bytes",
        MemoryUse,
        _size("peak_anonymous_bytes"),
        _MEMORY_SPREAD,
    ),
    Metric("file_bytes", "size of the file", "bytes", ModelIdentity, _size("size_bytes"), 0.0),
    Metric("joules_per_token", "energy of a token", "J", "decode", _joules),
    Metric("workload_p50_s", "an operation", "s", "workload", partial(_operation, share=0.5)),
    Metric("workload_p95_s", "slow operations", "s", "workload", partial(_operation, share=0.95)),
    Metric(
        "speedup_ratio",
        "speedup by drafts",
        "ratio",
        Speculation,
        lambda result: result.ratios,
        higher_is_better=True,
    ),
    Metric(
        "acceptance_ratio",
        "drafts accepted",
        "ratio",
        Speculation,
        lambda result: [result.acceptance_ratio],
        0.0,
        higher_is_better=True,
    ),
    Metric(
        "read_bytes_per_token",
        "read for a token",
        "bytes",
        Stream,
        lambda result: [result.read_bytes_per_token],
        0.007,
    ),
    Metric("perplexity", "perplexity", "", Record, _perplexity, _ROUNDING_SPREAD),
    Metric(
        "kl_divergence_nats",
        "distance from the reference",
        "nats",
        Quality,
        lambda result: [result.score.kl_divergence],
        0.0,
    ),
    Metric(
        "new_tokens_per_s",
        "writing for all users",
        "tokens/s",
        Load,
        _best("new_tokens_per_s"),
        higher_is_better=True,
    ),
    Metric(
        "goodput_requests_per_s",
        "requests in time",
        "requests/s",
        Load,
        _best("goodput_requests_per_s"),
        higher_is_better=True,
    ),
    Metric(
        "saturation_load",
        "load it carries",
        "",
        Load,
        lambda result: [result.saturation],
        higher_is_better=True,
    ),
    Metric(
        "sustained_tokens_per_s",
        "writing when warm",
        "tokens/s",
        Soak,
        lambda s: [s.sustained_tokens_per_s],
        higher_is_better=True,
    ),
    Metric(
        "sustained_joules_per_token",
        "energy when warm",
        "J",
        Soak,
        lambda result: [result.sustained_joules_per_token],
    ),
    Metric("hottest_celsius", "hottest sensor", "C", Soak, _hottest, 0.02),
)
_SCORES: Final = {
    "recall_at_10": "evidence found",
    "f1": "F1",
    "auc": "area under the curve",
    "right_ratio": "right answers",
    "recovered_ratio": "loss recovered",
}
"""Figures of a system's answers, a row each: name and title."""
_OF_SYSTEMS: Final = re.compile(r"(score|loss):(\w{1,80})")


class _Figures(dict[str, Metric]):
    """Figures by name, and any score of any system: ``score:NAME``, or ``loss:NAME`` if less of it is better."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or bool(_OF_SYSTEMS.fullmatch(str(name)))

    def __missing__(self, name: str) -> Metric:
        found = _OF_SYSTEMS.fullmatch(name)
        if found is None:
            raise KeyError(name)
        is_score = found[1] == "score"
        read = _scored(found[2], more_is_better=is_score)
        return Metric(name, found[2].replace("_", " "), "", Score, read, 0.0, higher_is_better=is_score)


FIGURES: Final = _Figures(
    {figure.name: figure for figure in _ROWS}
    | {
        name: Metric(name, title, "", Score, _scored(name), 0.0, higher_is_better=True)
        for name, title in _SCORES.items()
    }
)
"""Each figure by its name."""

MetricName = Annotated[
    str, Meta(extra_json_schema={"anyOf": [{"enum": list(FIGURES)}, {"pattern": f"^{_OF_SYSTEMS.pattern}$"}]})
]
"""The name of a figure; whoever takes one from a stranger asks whether it is in ``FIGURES``."""


def metric_values(record: Record, metric: MetricName, label: str = "") -> list[float]:
    """Believed values of one figure in its unit, one for each sample that counts, in the order they were taken.

    Warm-ups and disturbed samples are left out. ``label`` is a test's, such as ``tg128``; empty for every
    sample of the figure's phase at the run's own depth. Empty where the run has none.
    """
    figure = FIGURES[metric]
    parts = _parts(record, label)
    if figure.of not in parts:
        return []
    # Of a hostile record's numbers, each within its bounds, a quotient may be no number.
    return [value for value in figure.read(parts[figure.of]) if value is not None and math.isfinite(value)]


def latency_values(record: Record, label: str = "", *, share: float) -> list[float]:
    """That quantile of the times between tokens, in seconds, for each believed decode sample that timed them."""
    return _latencies(_parts(record, label).get("decode", ()), share=share)


def _parts(record: Record, label: str) -> dict[Any, Any]:
    """What figures are read of: believed samples by their phase, and memory, model and result by their type."""
    held: Iterable[object] = (record, record.memory, record.model, record.result)
    parts: dict[Any, Any] = {type(part): part for part in held}
    own = f" @ d{record.scenario.depth_tokens} "
    for sample in record.samples:
        is_usual = "@" not in f"{sample.label} ".replace(own, "")
        is_asked = sample.label == label if label else is_usual
        if is_asked and not sample.warm_up and not sample.validity.doubts:
            parts.setdefault(sample.phase, []).append(sample)
    if isinstance(record.result, SystemResult):  # a label names the kind of case
        parts[Score] = [score for score in record.result.scores if label in {"", score.group}]
    return parts
