"""Metrics derived from the raw samples of a record: one list of values for each metric, never a stored average.

Every metric has one definition here; comparison, gates, reports and adapters all read it from this place.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import numpy as np

from harness.domain.budget import Metric
from harness.domain.record import MemoryUse, ModelIdentity, RunRecord, Sample
from harness.domain.result import Generation, Load, Quality, Soak, Speculation, Stream


def metric_values(record: RunRecord, metric: Metric, label: str = "") -> list[float]:
    """Believed values of one metric, one for each sample that counts (warm-ups and disturbed samples left out).

    Args:
        record: The run.
        metric: What is asked.
        label: Test label such as ``tg128``; empty for every sample of the metric's phase at the run's own depth.

    Returns:
        Values in the metric's unit (``UNITS``), in the order they were taken; empty where the run has none.
    """
    _, of, read = _METRICS[metric]
    parts = _parts(record, label)
    # Of a hostile record's numbers, each within its bounds, a quotient may be no number.
    return [v for v in read(parts[of]) if v is not None and math.isfinite(v)] if of in parts else []


def latency_values(record: RunRecord, label: str = "", *, share: float) -> list[float]:
    """That quantile of the times between tokens, in seconds, for each believed decode sample that timed them."""
    return _latencies(_parts(record, label).get("decode", ()), share=share)


def _parts(record: RunRecord, label: str) -> dict[Any, Any]:
    """What metrics are read of: believed samples by their phase, and memory, model and result by their type."""
    parts: dict[Any, Any] = {type(part): part for part in (record, record.memory, record.model, record.result)}
    own = f" @ d{record.scenario.depth_tokens} "
    for sample in record.samples:
        is_usual = "@" not in f"{sample.label} ".replace(own, "")
        if not (sample.warm_up or sample.validity.doubts) and (sample.label == label if label else is_usual):
            parts.setdefault(sample.phase, []).append(sample)
    return parts


def _latencies(samples: Sequence[Sample], *, share: float) -> list[float]:
    return [float(np.quantile(s.token_times_s, share)) for s in samples if s.token_times_s]


def _rate(samples: Sequence[Sample]) -> list[float]:
    return [s.token_count / s.duration_s for s in samples if s.duration_s > 0]


def _durations(samples: Sequence[Sample]) -> list[float]:
    return [s.duration_s for s in samples]


def _operation(samples: Sequence[Sample], *, share: float) -> list[float]:
    """Quantile over the calls of each operation: one value a label, since operations are not comparable."""
    by_label: dict[str, list[float]] = {}
    for sample in samples:
        by_label.setdefault(sample.label, []).append(sample.duration_s / max(1, sample.token_count))
    return [float(np.quantile(values, share)) for values in by_label.values()]


def _joules(samples: Sequence[Sample]) -> list[float]:
    return [s.energy_joules / s.token_count for s in samples if s.energy_joules is not None and s.token_count]


def _perplexity(record: RunRecord) -> list[float]:
    result = record.result
    if isinstance(result, Generation):
        return [float(np.exp(np.mean(result.token_nll)))] if result.token_nll else []
    return [result.score.perplexity] if isinstance(result, Quality) else []


_METRICS: Final[dict[Metric, tuple[str, Any, Callable[[Any], Sequence[float | None]]]]] = {
    "decode_tokens_per_s": ("tokens/s", "decode", _rate),
    "prefill_tokens_per_s": ("tokens/s", "prefill", _rate),
    "ttft_s": ("s", "first_token", _durations),
    "itl_p50_s": ("s", "decode", partial(_latencies, share=0.5)),
    "itl_p99_s": ("s", "decode", partial(_latencies, share=0.99)),
    "load_s": ("s", "load", _durations),
    "peak_memory_bytes": ("bytes", MemoryUse, lambda m: [float(m.peak_rss_bytes)]),
    "peak_anonymous_bytes": ("bytes", MemoryUse, lambda m: [float(m.peak_anonymous_bytes)]),
    "file_bytes": ("bytes", ModelIdentity, lambda m: [float(m.size_bytes)]),
    "joules_per_token": ("J", "decode", _joules),
    "workload_p50_s": ("s", "workload", partial(_operation, share=0.5)),
    "workload_p95_s": ("s", "workload", partial(_operation, share=0.95)),
    "speedup_ratio": ("ratio", Speculation, lambda r: r.ratios),
    "acceptance_ratio": ("ratio", Speculation, lambda r: [r.acceptance_ratio]),
    "read_bytes_per_token": ("bytes", Stream, lambda r: [r.read_bytes_per_token]),
    "perplexity": ("", RunRecord, _perplexity),
    "kl_divergence_nats": ("nats", Quality, lambda r: [r.score.kl_divergence]),
    "new_tokens_per_s": ("tokens/s", Load, lambda r: [max(v.new_tokens_per_s for v in r.levels)]),
    "goodput_requests_per_s": ("requests/s", Load, lambda r: [max(v.goodput_requests_per_s for v in r.levels)]),
    "saturation_load": ("", Load, lambda r: [r.saturation]),
    "sustained_tokens_per_s": ("tokens/s", Soak, lambda r: [r.sustained_tokens_per_s]),
    "sustained_joules_per_token": ("J", Soak, lambda r: [r.sustained_joules_per_token]),
    "hottest_celsius": ("C", Soak, lambda r: [max((w.celsius for w in r.windows if w.celsius), default=None)]),
}
"""Unit of each metric, what it is read of (a phase or a type), and its reader."""

UNITS: Final[dict[Metric, str]] = {metric: unit for metric, (unit, *_) in _METRICS.items()}
