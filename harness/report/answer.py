"""The one plain sentence that an answer begins with, and what to do next."""

from typing import Final

from harness.domain.device import DeviceProfile
from harness.domain.prediction import Prediction
from harness.domain.record import RunRecord
from harness.predict.energy import Sustained
from harness.predict.verdict import reachable_tokens_per_s
from harness.records.compare import Comparison
from harness.records.derive import summarise
from harness.units import format_bytes, format_number, format_seconds

_UNSURE_RATIO: Final = 4.0
"""High over low of a 90 % interval from which a speed is not known well enough to say a number."""


def speed_words(low: float, mid: float, high: float) -> str:
    """A speed as a person would say it: a number where it is known well, its range where it is not."""
    if low <= 0 or high / low > _UNSURE_RATIO:
        between = f"{format_number(low, 2)} and {format_number(high, 2)} tokens/s"
        return f"somewhere between {between} (not known well enough)"
    return f"about {format_number(mid, 2)} tokens/s"


def first_line(now: Prediction, device: DeviceProfile, late: Sustained | None, *, users: int = 1, but: str = "") -> str:
    """Whether the model runs on the device, how fast for each of so many users, and in how much of its memory.

    ``but`` is what the answer rests on, where that is no more than a guess.
    """
    verdict, speed = now.verdict, now.speed
    name, decode = f"{now.model} {now.quant}", speed.decode_tokens_per_s
    memory = f"{format_bytes(verdict.needed_bytes)} of {format_bytes(verdict.available_bytes)}"
    if verdict.word == "does not fit":
        return f"No: {name} needs {memory} on {device.title}."
    if verdict.word == "fits with streaming":
        most = f"at most {format_number(reachable_tokens_per_s(now, device), 2)} tokens/s"
        return f"Hardly: {name} needs {memory} on {device.title}; streamed from storage, {most}."
    each = speed_words(*(speed / users for speed in (decode.low, decode.mid, decode.high)))
    parts = [
        each if users == 1 else f"{each} for each of {users} users",
        f"first token after {format_seconds(speed.ttft_warm_s.mid)}",
        f"uses {memory}",
    ]
    if late is not None and late.tokens_per_s.mid < 0.97 * decode.mid:
        parts.append(f"after {late.minutes:g} minutes about {format_number(late.tokens_per_s.mid, 2)} tokens/s")
    word = "Yes" if verdict.word == "fits" else "It fits, but is slower than wanted"
    word += f", {but}" if but else ""
    return f"{word}: {', '.join(parts)} ({name} on {device.title}, {now.api})."


def next_step(now: Prediction, here: bool, has_advice: bool) -> str:
    """The command that brings a user further."""
    if now.verdict.word in {"does not fit", "too slow"}:
        change = "take a change of the table above, or " if has_advice else ""
        return f"Next: {change}ask `edge-harness recommend {now.device}` for models that do."
    if here:
        return f"Next: `edge-harness check {now.model} -q {now.quant}` runs it here and compares."
    return "Next: `edge-harness check` on that device compares this with what it really does."


def check_line(record: RunRecord, comparison: Comparison | None) -> str:
    """What a run showed, beside what was predicted before it."""
    name, decode = f"{record.name} {record.quant}".strip(), summarise(record).test("decode")
    if record.outcome not in {"ok", "inconclusive"}:
        return f"{name} did not run: {record.outcome}: {record.detail.partition(chr(10))[0]}"
    timed = [s for s in record.samples if s.phase == "decode" and not s.warm_up and s.duration_s > 0]
    if decode is None or not timed:
        return f"{name}: nothing was timed."
    row = next((r for r in comparison.rows if r.name == "decode"), None) if comparison else None
    if decode.tokens_per_s is None:
        rates = [s.token_count / s.duration_s for s in timed]
        between = " to ".join(dict.fromkeys([format_number(min(rates)), format_number(max(rates))]))
        doubt = next(d for s in timed for d in s.validity.doubts)
        quiet = f"{speed_words(row.low, row.predicted, row.high)} predicted for a quiet machine. " if row else ""
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
    return f"{name}: {format_number(decode.tokens_per_s)} tokens/s measured{beside}{memory}."
