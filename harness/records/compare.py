"""Predicted and measured, side by side, with the error of each."""

from collections.abc import Iterator
from typing import Final

from harness.core.base import Frozen
from harness.core.device import CARD, NOT_PROBED, RAM
from harness.core.prediction import ENGINE_BUFFERS, Interval, MemoryPrediction
from harness.core.record import Phase, Record
from harness.core.result import Generation
from harness.records.derive import summarise


class ComparedRow(Frozen):
    """One quantity.

    Attributes:
        name: ``decode``, ``prefill``, ``first token``, ``first token, cold``, ``load``, ``load, cold``,
            ``peak memory``, ``anonymous memory``, ``buffers in vram``, ``buffers in ram``, ``slow token``.
        unit: ``tokens/s``, ``s`` or ``bytes``.
        predicted: Middle of the prediction; None where nothing was predicted.
        low: Lower end of its 90 % interval; ``high`` is the upper one.
        measured: Median of the clean samples, or of the disturbed ones where there are no others; None
            without any.
        least: Smallest clean sample; ``most`` is the largest.
        sample_count: Clean samples behind it.
        doubted: Whether all samples were disturbed: the value is shown, marked, and judged by nothing.
    """

    name: str
    unit: str
    predicted: float | None = None
    low: float | None = None
    high: float | None = None
    measured: float | None = None
    least: float | None = None
    most: float | None = None
    sample_count: int = 0
    doubted: bool = False

    @property
    def error_ratio(self) -> float | None:
        """(predicted - measured) / measured: positive when the prediction was too high.

        It is None for a value that is not to be believed.
        """
        if self.predicted is not None and self.measured and not self.doubted:
            return (self.predicted - self.measured) / self.measured
        return None

    @property
    def inside(self) -> bool | None:
        """Whether the measurement lies in the predicted interval; None for a value in doubt."""
        if self.measured is None or self.low is None or self.high is None or self.doubted:
            return None
        return self.low <= self.measured <= self.high


class Comparison(Frozen):
    """All rows of one run, and what they say of the profile."""

    run_id: str
    rows: tuple[ComparedRow, ...]
    notes: tuple[str, ...] = ()


def compare(record: Record) -> Comparison | None:
    """The comparison of a run with what was predicted before it; None when nothing was."""
    if record.prediction is None:
        return None
    rows = [row for row in rows_of(record) if row.predicted is not None]
    decode = rows[0].measured
    ceiling = record.prediction.speed.roofline_tokens_per_s
    notes = []
    if decode is not None and not rows[0].doubted and 0 < ceiling < decode:
        notes.append(
            f"measured decode ({decode:.1f} tokens/s) is above its ceiling ({ceiling:.1f}): "
            "the device profile understates the bandwidth; probe the device again"
        )
    return Comparison(run_id=record.run_id, rows=tuple(rows), notes=tuple(notes))


def rows_of(record: Record) -> list[ComparedRow]:
    """Every quantity of a run, predicted or not, measured or not; the speed of decoding first."""
    prediction = record.prediction
    asked = record.scenario
    tests = summarise(record)
    rows = []
    for name, unit, phase, label, field in _TIMED:
        row = ComparedRow(name=name, unit=unit)
        test = tests.test(phase, label.format(max(1, asked.prompt_tokens)))
        if test is not None and (asked.is_timed_cold or name != "first token, cold"):
            row = row.replace(
                measured=test.doubted_value if test.value is None else test.value,
                least=test.least,
                most=test.most,
                sample_count=test.sample_count,
                doubted=test.value is None,
            )
        rows.append(_beside(row, getattr(prediction.speed, field) if prediction else None))
    decode = tests.test("decode")
    if decode is not None and decode.token_p99_s is not None:
        slow = ComparedRow(
            name="slow token", unit="s", measured=decode.token_p99_s, sample_count=decode.sample_count
        )
        rows.append(slow)
    used = record.memory
    if prediction is not None and prediction.device == NOT_PROBED:
        used = None
    memory = prediction.memory if prediction else None
    peak = memory.peak_bytes if memory else None
    rows.append(_held("peak memory", used.peak_rss_bytes if used else 0, peak))
    if memory is not None:
        if used is not None and used.peak_anonymous_bytes:
            rows.append(_held("anonymous memory", used.peak_anonymous_bytes, memory.anonymous))
        rows += _pools(record, memory)
    return rows


_TIMED: Final[tuple[tuple[str, str, Phase, str, str], ...]] = (
    ("decode", "tokens/s", "decode", "", "decode_tokens_per_s"),
    ("prefill", "tokens/s", "prefill", "", "prefill_tokens_per_s"),
    ("first token", "s", "first_token", "", "ttft_warm_s"),
    ("first token, cold", "s", "first_token", "ttft{} @ cold", "ttft_cold_s"),
    ("load", "s", "load", "load", "load_warm_s"),
    ("load, cold", "s", "load", "load @ cold", "load_cold_s"),
)
"""Times and speeds: the name of the row, the unit, the test by its phase and label, the field of the prediction."""
_BUFFER_SPREAD: Final = 0.02
"""What the engine's buffers together may be off by: scratch is not exact."""


def _pools(record: Record, memory: MemoryPrediction) -> Iterator[ComparedRow]:
    """The engine's buffers in each pool, where it has a GPU: what it said it laid there, and what was predicted."""
    sizes = {CARD: 0, RAM: 0}
    for buffer in record.result.buffers if isinstance(record.result, Generation) else ():
        if not buffer.is_mapped:
            sizes[RAM if buffer.on_host else CARD] += buffer.size_bytes
    for pool, size in sizes.items() if sizes[CARD] else ():
        predicted = 0.0
        for part in memory.parts:
            if part.pool == pool and part.kind in ENGINE_BUFFERS and not part.drafts:
                predicted += part.anonymous_bytes
        if predicted:  # what is small and the host's is no part of a prediction for a GPU alone
            interval = Interval(predicted, predicted * (1 - _BUFFER_SPREAD), predicted * (1 + _BUFFER_SPREAD))
            yield _held(f"buffers in {pool}", size, interval)


def _held(name: str, size: int, predicted: Interval | None) -> ComparedRow:
    """The row of a reading of memory; its size is in bytes, and 0 where nothing was read."""
    row = ComparedRow(name=name, unit="bytes", measured=float(size) or None, sample_count=int(size > 0))
    return _beside(row, predicted)


def _beside(row: ComparedRow, predicted: Interval | None) -> ComparedRow:
    if predicted is None:
        return row
    return row.replace(predicted=predicted.mid, low=predicted.low, high=predicted.high)
