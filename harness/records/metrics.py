"""Metrics derived from the raw samples of a record: one list of values for each metric, never a stored average.

Every metric has one definition here; comparison, gates, reports and adapters all read it from this place.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import numpy as np

from harness.domain.budget import Metric
from harness.domain.record import K, Phase, RunRecord, Sample
from harness.domain.result import Boundary, Generation, Load, Quality, Soak, Speculation, Stream

Phases = Mapping[Phase, Sequence[Sample]]


def metric_values(record: RunRecord, metric: Metric, label: str = "") -> list[float]:
    """Believed values of one metric, one for each sample that counts (warm-ups and disturbed samples left out).

    Args:
        record: The run.
        metric: What is asked.
        label: Test label such as ``tg128``; empty for every sample of the metric's phase at depth 0.

    Returns:
        Values in the metric's unit (``UNITS``), in the order they were taken; empty where the run has none.
    """
    return _METRICS[metric][1](record, _believed(record, label))


def all_values(record: RunRecord) -> dict[Metric, list[float]]:
    """The same of every metric that the run holds; its samples are sorted once for all of them."""
    phases = _believed(record)
    return {metric: values for metric, (_, read) in _METRICS.items() if (values := read(record, phases))}


def latency_values(record: RunRecord, label: str = "", *, share: float) -> list[float]:
    """That quantile of the times between tokens, in seconds, for each believed decode sample that timed them."""
    return _latencies(record, _believed(record, label), share=share)


def _believed(record: RunRecord, label: str = "") -> Phases:
    phases: defaultdict[Phase, list[Sample]] = defaultdict(list)
    for sample in record.samples:
        if sample.warm_up or sample.validity.doubts or (sample.label != label if label else "@" in sample.label):
            continue
        phases[sample.phase].append(sample)
    return phases


def _latencies(_record: RunRecord, phases: Phases, *, share: float) -> list[float]:
    return [float(np.quantile(s.token_times_s, share)) for s in phases.get("decode", ()) if s.token_times_s]


def _rate(_record: RunRecord, phases: Phases, *, phase: Phase) -> list[float]:
    return [s.token_count / s.duration_s for s in phases.get(phase, ()) if s.duration_s > 0]


def _durations(_record: RunRecord, phases: Phases, *, phase: Phase) -> list[float]:
    return [s.duration_s for s in phases.get(phase, ())]


def _operation(_record: RunRecord, phases: Phases, *, share: float) -> list[float]:
    """Quantile over the calls of each operation: one value a label, since operations are not comparable."""
    by_label: dict[str, list[float]] = {}
    for sample in phases.get("workload", ()):
        by_label.setdefault(sample.label, []).append(sample.duration_s / max(1, sample.token_count))
    return [float(np.quantile(values, share)) for values in by_label.values()]


def _joules(_record: RunRecord, phases: Phases) -> list[float]:
    return [
        s.energy_joules / s.token_count
        for s in phases.get("decode", ())
        if s.energy_joules is not None and s.token_count
    ]


def _peak(record: RunRecord, _phases: Phases) -> list[float]:
    memory = record.memory
    if memory is None:
        return []
    return [float(memory.peak_pss_bytes if memory.peak_pss_bytes is not None else memory.peak_rss_bytes)]


def _of(kind: type[K], read: Callable[[K], Sequence[float | None]]) -> Callable[[RunRecord, Phases], list[float]]:
    """Reader of figures that stand in a result of one kind."""

    def values(record: RunRecord, _phases: Phases) -> list[float]:
        return [v for v in read(record.result) if v is not None] if isinstance(record.result, kind) else []

    return values


def _perplexity(record: RunRecord, _phases: Phases) -> list[float]:
    result = record.result
    if isinstance(result, Generation):
        return [float(np.exp(np.mean(result.token_nll)))] if result.token_nll else []
    return [result.score.perplexity] if isinstance(result, Quality) else []


_METRICS: Final[dict[Metric, tuple[str, Callable[[RunRecord, Phases], list[float]]]]] = {
    "decode_tokens_per_s": ("tokens/s", partial(_rate, phase="decode")),
    "prefill_tokens_per_s": ("tokens/s", partial(_rate, phase="prefill")),
    "ttft_s": ("s", partial(_durations, phase="first_token")),
    "itl_p50_s": ("s", partial(_latencies, share=0.5)),
    "itl_p99_s": ("s", partial(_latencies, share=0.99)),
    "load_s": ("s", partial(_durations, phase="load")),
    "peak_memory_bytes": ("bytes", _peak),
    "peak_anonymous_bytes": ("bytes", lambda r, _: [float(r.memory.peak_anonymous_bytes)] if r.memory else []),
    "file_bytes": ("bytes", lambda r, _: [float(r.model.size_bytes)] if r.model else []),
    "joules_per_token": ("J", _joules),
    "workload_p50_s": ("s", partial(_operation, share=0.5)),
    "workload_p95_s": ("s", partial(_operation, share=0.95)),
    "speedup_ratio": ("ratio", _of(Speculation, lambda r: r.ratios)),
    "acceptance_ratio": ("ratio", _of(Speculation, lambda r: [r.acceptance_ratio])),
    "read_bytes_per_token": ("bytes", _of(Stream, lambda r: [r.read_bytes_per_token])),
    "perplexity": ("", _perplexity),
    "kl_divergence_nats": ("nats", _of(Quality, lambda r: [r.score.kl_divergence])),
    "longest_context_tokens": ("tokens", _of(Boundary, lambda r: [r.found_tokens])),
    "new_tokens_per_s": ("tokens/s", _of(Load, lambda r: [max(v.new_tokens_per_s for v in r.levels)])),
    "goodput_requests_per_s": ("requests/s", _of(Load, lambda r: [max(v.goodput_requests_per_s for v in r.levels)])),
    "saturation_load": ("", _of(Load, lambda r: [r.saturation])),
    "sustained_tokens_per_s": ("tokens/s", _of(Soak, lambda r: [r.sustained_tokens_per_s])),
    "sustained_joules_per_token": ("J", _of(Soak, lambda r: [r.sustained_joules_per_token])),
    "hottest_celsius": ("C", _of(Soak, lambda r: [max((w.celsius for w in r.windows if w.celsius), default=None)])),
}
"""Unit and reader of each metric."""

UNITS: Final[dict[Metric, str]] = {metric: unit for metric, (unit, _) in _METRICS.items()}
