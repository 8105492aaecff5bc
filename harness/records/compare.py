"""Predicted and measured, side by side, with the error of each."""

from typing import Final

from harness.domain.base import Frozen
from harness.domain.prediction import Interval, MemoryPrediction
from harness.domain.record import Phase, RunRecord
from harness.domain.result import Generation
from harness.records.derive import Summary, summarise

GATED: Final = ("decode", "prefill", "peak memory")
"""Rows that ``--max-error`` judges. Times of loading hang on what else the disk does, and are shown only."""


class Row(Frozen, frozen=True, kw_only=True):
    """One quantity.

    Attributes:
        name: ``decode``, ``prefill``, ``first token``, ``first token, cold``, ``load``, ``load, cold``,
            ``peak memory``, ``anonymous memory``.
        unit: ``tokens/s``, ``s`` or ``bytes``.
        predicted: Middle of the prediction.
        low: Lower end of its 90 % interval.
        high: Upper end.
        measured: Median of the clean samples; None when there is none.
        sample_count: Clean samples behind it.
    """

    name: str
    unit: str
    predicted: float
    low: float
    high: float
    measured: float | None
    sample_count: int

    @property
    def error_ratio(self) -> float | None:
        """(predicted - measured) / measured: positive when the prediction was too high."""
        return (self.predicted - self.measured) / self.measured if self.measured else None

    @property
    def inside(self) -> bool | None:
        """Whether the measurement lies in the predicted interval."""
        return None if self.measured is None else self.low <= self.measured <= self.high


class Comparison(Frozen, frozen=True, kw_only=True):
    """All rows of one run, and what they say of the profile."""

    run_id: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def worst(self, names: tuple[str, ...] = GATED) -> Row | None:
        """The row with the largest error among ``names``."""
        judged = [row for row in self.rows if row.name in names and row.error_ratio is not None]
        return max(judged, key=lambda row: abs(row.error_ratio or 0.0), default=None)


def compare(record: RunRecord) -> Comparison | None:
    """The comparison of a run with what was predicted before it; None when nothing was."""
    prediction = record.prediction
    if prediction is None:
        return None
    summary, speed, memory = summarise(record), prediction.speed, prediction.memory
    p = record.scenario.prompt_tokens
    rows = [
        _rate("decode", speed.decode_tokens_per_s, summary, "decode"),
        _rate("prefill", speed.prefill_tokens_per_s, summary, "prefill"),
        _time("first token", speed.ttft_warm_s, summary, "first_token", ""),
        _time("first token, cold", speed.ttft_cold_s, summary, "first_token", f"ttft{max(1, p)} @ cold"),
        _time("load", speed.load_warm_s, summary, "load", "load"),
        _time("load, cold", speed.load_cold_s, summary, "load", "load @ cold"),
        _size("peak memory", memory.peak_bytes, summary.peak_rss_bytes),
    ]
    if summary.peak_anonymous_bytes:
        exact = float(memory.anonymous_bytes)
        rows.append(_size("anonymous memory", Interval(mid=exact, low=exact, high=exact), summary.peak_anonymous_bytes))
    rows += _pools(record, memory)
    notes = []
    decode = rows[0].measured
    if decode is not None and 0 < speed.roofline_tokens_per_s < decode:
        notes.append(
            f"measured decode ({decode:.1f} tokens/s) is above its ceiling ({speed.roofline_tokens_per_s:.1f}): "
            "the device profile understates the bandwidth; probe the device again"
        )
    return Comparison(run_id=record.run_id, rows=tuple(rows), notes=tuple(notes))


_PARTS: Final = ("weights", "token table", "kv cache", "compute buffer", "host buffer")
"""Parts of a prediction that are buffers of the engine; the rest is the process's own."""


def _pools(record: RunRecord, memory: MemoryPrediction) -> list[Row]:
    """The engine's buffers in each pool, where it has a GPU: what it said it laid there, and what was predicted.

    A mapped file is address space, not memory: what of it is resident shows in the peak.
    """
    told = {"vram": 0, "ram": 0}
    for buffer in record.result.buffers if isinstance(record.result, Generation) else ():
        if not buffer.device.endswith("_Mapped"):
            told["ram" if buffer.on_host else "vram"] += buffer.size_bytes
    if not told["vram"]:
        return []
    rows = []
    for pool, size in told.items():
        predicted = float(sum(p.anonymous_bytes for p in memory.parts if p.pool == pool and p.name.startswith(_PARTS)))
        if predicted:  # what is small and the host's is no part of a prediction for a GPU alone
            rows.append(_size(f"buffers in {pool}", Interval(mid=predicted, low=predicted, high=predicted), size))
    return rows


def _rate(name: str, predicted: Interval, summary: Summary, phase: Phase) -> Row:
    test = summary.test(phase)
    return Row(
        name=name,
        unit="tokens/s",
        predicted=predicted.mid,
        low=predicted.low,
        high=predicted.high,
        measured=test.tokens_per_s if test else None,
        sample_count=test.clean_count if test else 0,
    )


def _time(name: str, predicted: Interval, summary: Summary, phase: Phase, label: str) -> Row:
    test = summary.test(phase, label)
    return Row(
        name=name,
        unit="s",
        predicted=predicted.mid,
        low=predicted.low,
        high=predicted.high,
        measured=test.duration_s if test else None,
        sample_count=test.clean_count if test else 0,
    )


def _size(name: str, predicted: Interval, measured: int | None) -> Row:
    return Row(
        name=name,
        unit="bytes",
        predicted=predicted.mid,
        low=predicted.low,
        high=predicted.high,
        measured=float(measured) if measured else None,
        sample_count=1 if measured else 0,
    )
