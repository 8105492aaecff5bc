"""What a check showed, in a line."""

from typing import TYPE_CHECKING

from harness.domain.record import RunRecord
from harness.report.answer import two
from harness.units import format_bytes, format_number

if TYPE_CHECKING:
    from harness.records.compare import Comparison


def check_line(record: RunRecord, comparison: "Comparison | None") -> str:
    """What a run showed, beside what was predicted before it."""
    from harness.records.derive import summarise  # it brings numpy, and questions are answered without

    name, decode = f"{record.name} {record.quant}".strip(), summarise(record).test("decode")
    if record.outcome not in {"ok", "inconclusive"}:
        return f"{name} did not run: {record.outcome}: {record.detail.partition(chr(10))[0]}"
    timed = [s for s in record.samples if s.phase == "decode" and not s.warm_up and s.duration_s > 0]
    if decode is None or not timed:
        return f"{name}: nothing was timed."
    row = next((r for r in comparison.rows if r.name == "decode"), None) if comparison else None
    if decode.value is None:
        rates = [s.token_count / s.duration_s for s in timed]
        between = " to ".join(dict.fromkeys([format_number(min(rates)), format_number(max(rates))]))
        doubt = next(d for s in timed for d in s.validity.doubts)
        quiet = f"{f'{two(row.low)} to {two(row.high)} tokens/s'} predicted beforehand. " if row else ""
        threads = record.scenario.thread_count
        leave = f", or leave a core to the others: `-t {threads - 1}`" if threads > 1 else ""
        return (
            f"{name}: {quiet}Measured {between} tokens/s, but the machine was disturbed all along "
            f"({doubt.partition(':')[0]}): not to be believed. Run it again when the machine is quiet{leave}."
        )
    beside = ""
    if row and row.error_ratio is not None:
        beside = f", predicted {format_number(row.predicted)} ({row.error_ratio:+.0%})"
    peak_bytes = record.memory.peak_rss_bytes if record.memory else 0
    memory = f", {format_bytes(peak_bytes)} of memory" if peak_bytes else ""
    return f"{name}: {format_number(decode.value)} tokens/s measured{beside}{memory}."
