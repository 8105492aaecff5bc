"""Predicted and measured, side by side, with the error of each."""

from typing import Final

from harness.domain.base import Frozen
from harness.domain.device import NOT_PROBED
from harness.domain.prediction import ENGINE_BUFFERS, Interval, MemoryPrediction
from harness.domain.record import RunRecord
from harness.domain.result import Generation
from harness.records.derive import Measured, summarise

GATED: Final = ("decode", "prefill", "peak memory")
"""Rows that ``--max-error`` judges. Times of loading hang on what else the disk does, and are shown only."""


class ComparedRow(Frozen):
    """One quantity.

    Attributes:
        name: ``decode``, ``prefill``, ``first token``, ``first token, cold``, ``load``, ``load, cold``,
            ``peak memory``, ``anonymous memory``.
        unit: ``tokens/s``, ``s`` or ``bytes``.
        predicted: Middle of the prediction.
        low: Lower end of its 90 % interval; ``high`` is the upper one.
        measured: Median of the clean samples, or of the disturbed ones where there are no others; None
            without any.
        sample_count: Clean samples behind it.
        doubted: Whether all samples were disturbed: the value is shown, marked, and judged by nothing.
    """

    name: str
    unit: str
    predicted: float
    low: float
    high: float
    measured: float | None
    sample_count: int
    doubted: bool = False

    @property
    def error_ratio(self) -> float | None:
        """(predicted - measured) / measured: positive when the prediction was too high.

        None for a value in doubt.
        """
        if self.measured and not self.doubted:
            return (self.predicted - self.measured) / self.measured
        return None

    @property
    def inside(self) -> bool | None:
        """Whether the measurement lies in the predicted interval; None for a value in doubt."""
        if self.measured is None or self.doubted:
            return None
        return self.low <= self.measured <= self.high


class Comparison(Frozen):
    """All rows of one run, and what they say of the profile."""

    run_id: str
    rows: tuple[ComparedRow, ...]
    notes: tuple[str, ...] = ()

    def worst(self) -> ComparedRow | None:
        """The row with the largest error among those that are judged."""
        judged = [row for row in self.rows if row.name in GATED and row.error_ratio is not None]
        return max(judged, key=lambda row: abs(row.error_ratio or 0.0), default=None)


def compare(record: RunRecord) -> Comparison | None:
    """The comparison of a run with what was predicted before it; None when nothing was."""
    prediction = record.prediction
    if prediction is None:
        return None
    speed = prediction.speed
    memory = prediction.memory
    used = None
    if prediction.device != NOT_PROBED:
        used = record.memory
    predicted = {
        "decode": speed.decode_tokens_per_s,
        "prefill": speed.prefill_tokens_per_s,
        "first token": speed.ttft_warm_s,
        "first token, cold": speed.ttft_cold_s,
        "load": speed.load_warm_s,
        "load, cold": speed.load_cold_s,
    }
    units = {"decode": "tokens/s", "prefill": "tokens/s"}
    tests = timed(record)
    rows = [_row(name, units.get(name, "s"), interval, tests[name]) for name, interval in predicted.items()]
    rows.append(_row("peak memory", "bytes", memory.peak_bytes, reading=used.peak_rss_bytes if used else 0))
    if used is not None and used.peak_anonymous_bytes:
        rows.append(_row("anonymous memory", "bytes", memory.anonymous, reading=used.peak_anonymous_bytes))
    rows += _pools(record, memory)
    notes = []
    decode = rows[0].measured
    if decode is not None and not rows[0].doubted and 0 < speed.roofline_tokens_per_s < decode:
        notes.append(
            f"measured decode ({decode:.1f} tokens/s) is above its ceiling ({speed.roofline_tokens_per_s:.1f}): "
            "the device profile understates the bandwidth; probe the device again"
        )
    return Comparison(run_id=record.run_id, rows=tuple(rows), notes=tuple(notes))


def timed(record: RunRecord) -> dict[str, Measured | None]:
    """The test behind each time and speed that is predicted, by the name of its row.

    None where there is none.
    """
    tests = summarise(record)
    asked = record.scenario
    cold = f"ttft{max(1, asked.prompt_tokens)} @ cold"
    return {
        "decode": tests.test("decode"),
        "prefill": tests.test("prefill"),
        "first token": tests.test("first_token"),
        "first token, cold": tests.test("first_token", cold) if asked.is_timed_cold else None,
        "load": tests.test("load", "load"),
        "load, cold": tests.test("load", "load @ cold"),
    }


_BUFFER_SPREAD: Final = 0.02
"""What the engine's buffers together may be off by: scratch is not exact."""


def _pools(record: RunRecord, memory: MemoryPrediction) -> list[ComparedRow]:
    """The engine's buffers in each pool, where it has a GPU: what it said it laid there, and what was predicted."""
    sizes = {"vram": 0, "ram": 0}
    for buffer in record.result.buffers if isinstance(record.result, Generation) else ():
        if not buffer.is_mapped:
            sizes["ram" if buffer.on_host else "vram"] += buffer.size_bytes
    rows = []
    for pool, size in sizes.items() if sizes["vram"] else ():
        told = [
            part
            for part in memory.parts
            if part.pool == pool and part.kind in ENGINE_BUFFERS and not part.drafts
        ]
        predicted = float(sum(part.anonymous_bytes for part in told))
        if predicted:  # what is small and the host's is no part of a prediction for a GPU alone
            interval = Interval(predicted, predicted * (1 - _BUFFER_SPREAD), predicted * (1 + _BUFFER_SPREAD))
            rows.append(_row(f"buffers in {pool}", "bytes", interval, reading=size))
    return rows


def _row(
    name: str, unit: str, predicted: Interval, test: Measured | None = None, reading: int = 0
) -> ComparedRow:
    """The row of a test, or of one ``reading`` of memory in bytes, which is 0 where there is none."""
    measured, count = (test.value, test.sample_count) if test else (float(reading) or None, int(reading > 0))
    doubted = test is not None and measured is None and test.doubted_value is not None
    return ComparedRow(
        name=name,
        unit=unit,
        predicted=predicted.mid,
        low=predicted.low,
        high=predicted.high,
        measured=test.doubted_value if test and doubted else measured,
        sample_count=count,
        doubted=doubted,
    )
