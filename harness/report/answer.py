"""The one plain sentence that an answer begins with, and what to do next."""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from harness.app.resolve import ResolvedModel
from harness.app.ways import Way
from harness.domain.device import DeviceProfile
from harness.domain.placement import Placement
from harness.domain.prediction import Interval, PartKind, Prediction
from harness.domain.program import program_named
from harness.domain.record import RunRecord
from harness.predict.energy import Sustained
from harness.predict.streamed import STREAMING_SYSTEMS
from harness.predict.verdict import needed_bytes_of
from harness.units import MIB, format_bytes, format_number, format_seconds

if TYPE_CHECKING:
    from harness.records.compare import Comparison

_RARE_MIXTURES: Final = frozenset({"Q5_0", "Q5_1", "IQ3_S"})
"""Mixtures that those who upload files rarely make."""
_SHORT_TOKENS: Final = 512
"""Context up to which nobody asks how deep it is."""
_SAME_RATIO: Final = 0.97
"""Of a speed, from which nobody tells another apart."""
_OLLAMA_BYTES_MAX: Final = 45e9
"""Files that are larger come in parts, which Ollama does not read (ollama/ollama#5245)."""
_UNSURE_RATIO: Final = 4.0
"""High over low of a 90 % interval from which a speed is not known well enough to say a number."""

_SLOW_TOKENS_PER_S: Final = 2.0
_HARDLY_TOKENS_PER_S: Final = 0.5
_READING_TOKENS_PER_S: Final = 5.0
"""Decode speeds below which nobody would simply say yes: people read some five tokens a second."""


def speed_words(low: float, mid: float, high: float, settles: str = "") -> str:
    """A speed as a person would say it: a number where it is known well, its range where it is not.

    ``settles`` is the measurement that would tell.
    """
    if low <= 0 or high / low > _UNSURE_RATIO:
        between = f"{format_number(low, 2)} and {format_number(high, 2)} tokens/s"
        return f"somewhere between {between} (not known well enough{': ' if settles else ''}{settles})"
    return f"about {format_number(mid, 2)} tokens/s"


def first_line(
    way: Way,
    device: DeviceProfile,
    late: Sustained | None,
    *,
    decode: Interval | None = None,
    full: Interval | None = None,
    target_tokens_per_s: float | None = None,
    but: str = "",
    reads_only: bool = False,
) -> str:
    """Whether the model runs on the device by its best way, how fast, and in how much of its memory.

    ``decode`` is the speed at the depth that the prompt leads to, where it is another than the prediction's, ``full``
    that of a full context; ``but`` what the answer rests on, where that is no more than a guess. An encoder
    (``reads_only``) writes nothing.
    """
    now, asked = way.prediction, way.scenario
    verdict, speed, users = now.verdict, now.speed, asked.batch_count
    name = f"{now.model} {now.quant} on {device.title}, {now.api}"
    memory = f"{format_bytes(verdict.needed_bytes)} of {format_bytes(verdict.available_bytes)}"
    if not way.runs:
        more, then = device.pool("ram").entitled_bytes, speed.decode_tokens_per_s
        if more is not None and verdict.available_bytes < verdict.needed_bytes <= more.value:
            words = speed_words(then.low, then.mid, then.high)
            return f"No, unless the app has the higher-limit entitlement: then {words}, needs {memory} ({name})."
        return f"No: it needs {memory}, and no split or streaming helps: {verdict.reasons[-1]} ({name})."
    decode = decode or speed.decode_tokens_per_s
    if reads_only:
        read, read_s = speed.prefill_tokens_per_s, span(speed.ttft_warm_s)
        between = f"{format_number(read.low, 2)} to {format_number(read.high, 2)}"
        spoken = (
            f"reads about {format_number(read.mid, 2)} tokens/s ({between}), {asked.prompt_tokens} tokens in {read_s}"
        )
        return f"{_verdict_word(way, None, decode)}: {spoken}, uses {memory} ({name})."
    settles = next((text.partition(": ")[2] for text in speed.unsettled if text.startswith("decode")), "")
    low, mid, high = (rate / users for rate in (decode.low, decode.mid, decode.high))
    spoken = speed_words(low, mid, high, settles)
    if spoken.startswith("about"):
        spoken += f" ({format_number(low, 2)} to {format_number(high, 2)})"
    if users > 1:
        spoken += f" for each of {users} users, {format_number(decode.mid, 2)} together"
    context = asked.depth_tokens + asked.prompt_tokens
    if context > _SHORT_TOKENS:
        spoken += f" after {context:,} tokens"
    if full is not None and full.mid < _SAME_RATIO * decode.mid:
        spoken += f", {format_number(full.mid / users, 2)}{' each' if users > 1 else ''} when the context is full"
    parts = [spoken, f"first token after {span(speed.ttft_warm_s)}"]
    if not way.is_usual:
        parts.append(f"{way.how}{' (' if way.flags else ''}{way.flags}{')' if way.flags else ''}")
    parts.append(f"uses {memory}" if verdict.needed_bytes <= verdict.available_bytes else f"needs {memory}")
    streams = verdict.word == "fits with streaming"
    if late is not None and not streams and late.tokens_per_s.mid < _SAME_RATIO * decode.mid:
        parts.append(f"after {late.minutes:g} minutes about {format_number(late.tokens_per_s.mid, 2)} tokens/s")
    word = _verdict_word(way, target_tokens_per_s, decode)
    word += f", {but}" if but else ""
    return f"{word}: {', '.join(parts)} ({name})."


def _verdict_word(way: Way, target_tokens_per_s: float | None, decode: Interval) -> str:
    """Yes or no, or barely: where an interval crosses a limit; a split that was looked for leaves that much room."""
    verdict, peak = way.prediction.verdict, way.prediction.memory.peak_bytes
    if verdict.word == "too slow":
        reaches = target_tokens_per_s is not None and decode.high >= target_tokens_per_s
        return "Perhaps, but probably slower than wanted" if reaches else "It runs, but is slower than wanted"
    if decode.mid / way.scenario.batch_count < _HARDLY_TOKENS_PER_S:
        return "Very slowly"
    streams = verdict.word == "fits with streaming"
    if decode.mid / way.scenario.batch_count < (_READING_TOKENS_PER_S if streams else _SLOW_TOKENS_PER_S):
        return "Slowly"
    if streams:
        return "Yes, partly from storage"
    likely_bytes = verdict.needed_bytes + (peak.high - peak.mid) / 2  # more than that in one run of five
    is_full = way.is_usual and likely_bytes > verdict.available_bytes
    misses = target_tokens_per_s is not None and decode.low < target_tokens_per_s
    return "Barely" if is_full or misses else "Yes"


def span(value: Interval, form: Callable[[float], str] = format_seconds) -> str:
    """A quantity with its interval; where that is too wide, the interval alone."""
    if value.low == value.high:
        return form(value.mid)
    between = f"{form(value.low)} to {form(value.high)}"
    return between if value.high > _UNSURE_RATIO * value.low else f"{form(value.mid)} ({between})"


def other_ways(ways: Sequence[Way]) -> str:
    """The next best way, in a line; empty without."""
    for way in ways[1:2]:
        decode = way.prediction.speed.decode_tokens_per_s
        flags = f" ({way.flags})" if way.flags else ""
        return f"Next best: {way.how}{flags}, {speed_words(decode.low, decode.mid, decode.high)}."
    return ""


def commands(
    way: Way,
    model: ResolvedModel,
    repository_of: Callable[[str], str],
    draft: ResolvedModel | None = None,
    kept: str = "",
) -> list[str]:
    """What to type to run it so: by llama-server, and by Ollama where that does the same; empty where it does not run.

    ``repository_of`` tells one of the hub that has a file of a model, empty where none is known. It is not asked of
    what a card or a mixture merely stands for: that file is a local one. ``kept`` is what :func:`kept_flags` says.
    """
    asked, flags = way.scenario, way.flags
    if not way.runs or (way.prediction.verdict.word == "fits with streaming" and not flags):
        return []

    def published(one: ResolvedModel) -> str:
        is_itself = not (one.asked_name or one.asked_quant or one.quant in _RARE_MIXTURES)
        return repository_of(one.name) if is_itself else ""

    def file_of(one: ResolvedModel, from_hub: str, local: str) -> str:
        if there := published(one):
            return f"{from_hub} {there}:{one.quant}"
        file = re.sub(r"[^\w.+-]+", "-", "-".join(one.shown).rpartition("/")[2])
        return f"{local} {one.path or f'{file}.gguf'}"

    repository, beside = published(model), file_of(draft, "-hfd", "-md") if draft else ""
    tower = "--mmproj mmproj-F16.gguf" if model.tower_bytes and not repository else ""
    file = file_of(model, "-hf", "-m")
    words = [f"llama-server {file} -c {asked.context_tokens}", tower, flags, beside, asked.flags, kept]
    lines = [" ".join(filter(None, words))]
    is_told = asked.flags or asked.api or asked.placement != Placement() or draft
    if repository and way.is_usual and not is_told and model.weights.file_bytes <= _OLLAMA_BYTES_MAX:
        then = f"type: /set parameter num_ctx {asked.context_tokens}"
        lines.append(f"ollama run hf.co/{repository}:{model.quant}  # then {then}")
    return lines


def kept_flags(way: Way, device: DeviceProfile) -> str:
    """Options that keep what llama-server adds over many turns to the RAM that is left; empty where all has room.

    Saved states take half of it, or more for one of each slot; the caches of other prompts what they leave.
    """
    now, later = way.prediction, {part.kind: part.anonymous_bytes for part in way.prediction.memory.later}
    left = int(device.pool("ram").usable_bytes.value) - sum(needed_bytes_of(now.memory.parts, "ram"))
    if sum(later.values()) <= left or not later:
        return ""
    words, states = [], later.get(PartKind.CHECKPOINTS, 0)
    if states > max(left, 0) / 2:
        most = program_named(way.scenario.program).checkpoints
        count = max(int(most * left / 2 / states), int(states <= most * left))
        words.append(f"--ctx-checkpoints {count}")
        states = states * count // most
    if later.get(PartKind.PROMPT_CACHE, 0) > left - states:
        words.append(f"--cache-ram {max(left - states, 0) // MIB}")
    return " ".join(words)


def measured_line(measured: float, now: Prediction) -> str:
    """What a measured decode speed says beside the prediction."""
    decode = now.speed.decode_tokens_per_s
    between = f"{format_number(decode.low)} to {format_number(decode.high)} tokens/s predicted"
    if measured > now.speed.roofline_tokens_per_s:
        says = f"more than the memory can deliver, so that the profile of {now.device} is wrong"
    elif measured > decode.high:
        line = f"{now.model} {now.quant} - {measured:g}"
        says = f"faster than expected; `edge-harness learn --device {now.device} --line '{line}'` takes it into account"
    elif measured >= decode.low:
        says = "as expected"
    else:
        says = f"slower than expected, {100 * measured / decode.mid:.0f} % of the most likely speed"
    return f"Measured {measured:g} tokens/s, {between}: {says}."


def next_step(way: Way, device: DeviceProfile, here: bool, has_advice: bool) -> str:
    """The command that brings a user further."""
    now = way.prediction
    if now.verdict.word in {"does not fit", "too slow"}:
        change = "take a change of the table above, or " if has_advice else ""
        return f"Next: {change}ask `edge-harness recommend {now.device}` for models that fit and are fast enough."
    if now.verdict.word == "fits with streaming":
        if way.flags or device.os not in STREAMING_SYSTEMS:
            return ""
        there, budget = "" if here else " on that device", f"{now.verdict.available_bytes >> 20}MiB"
        command = f"edge-harness stream {now.model} -q {now.quant} --ram-budget {budget}"
        return f"Next: `{command}`{there} reads it from storage."
    if here:
        return f"Next: `edge-harness check {now.model} -q {now.quant}` runs it here and compares."
    return "Next: `edge-harness check` on that device compares this with what it really does."


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
        quiet = f"{speed_words(row.low, row.predicted, row.high)} predicted beforehand. " if row else ""
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
