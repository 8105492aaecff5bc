"""What cannot be: one law of the figures that bytes, operations, counts and times allow, for every door.

A record, an import, an answer of a server or a pasted row that breaks it is kept and marked. No gate counts it, no page
headlines it, nothing is learnt from it.
"""

from collections.abc import Iterator
from typing import Final

from harness.core.record import ModelIdentity, Record, Sample
from harness.core.result import Generation, Load, Quality, ResultKind, Soak, Speculation, SystemResult
from harness.core.units import KIB, MIB

SLACK: Final = 1.15
"""Above the roofline by which a measurement may lie: bandwidths are specified, and clocks boost."""
MOST_TOKENS_PER_S: Final = 20_000.0
"""Decode of one sequence: the fastest accelerators write a tenth of it."""
_MOST_PROMPT_TOKENS_PER_S: Final = 2e6
_MOST_FLOPS_PER_S: Final = 4e16
"""Of one machine with eight accelerators at four bits."""
_LEAST_ACTIVE_RATIO: Final = 0.01
"""Weights that a token uses of all, in the sparsest mixtures of experts."""
_MOST_WATTS: Final = 1e5
_LEAST_WATTS: Final = 1e-3
"""A processor that computes draws more; a sleeping microcontroller draws this."""
_MOST_LOADED_BYTES_PER_S: Final = 1e14
"""Opening a mapped file reads little of it, but its tables of tensors are read."""
_LEAST_PROCESS_BYTES: Final = 64 * KIB
_BITS_PER_WEIGHT: Final = (0.5, 80.0)
"""Of a file: ternary weights take 1.6 bits, float64 takes 64; tables of a small model come on top."""
_LEAST_WEIGHTS: Final = 10_000_000
"""Below which a file is mostly its vocabulary, and says nothing of bits per weight."""
_LEAST_TIMED_TOKENS: Final = 8
_LEAST_OF_THE_SAMPLE: Final = 0.05
"""Share of a sample that the times of its own tokens take at least, where each was timed."""
_MOST_SPEEDUP: Final = 64.0
"""By drafts: as many tokens as the longest draft has, all accepted, in one pass."""
_CELSIUS: Final = (-60.0, 200.0)
_ROUNDED_NATS: Final = 1e-3
_SHARES: Final = frozenset({"recall_at_10", "f1", "auc", "right_ratio"})
"""Scores of systems that are shares of something."""
_CLOCK_SLACK_S: Final = 5.0
_MOST_OF_THE_WALL: Final = 3.0
"""Times of the command's own time that its samples may take together: sequences side by side overlap."""
_ROUNDING: Final = 1.02
_LEAST_RAM_BYTES: Final = 16 * MIB
"""RAM below which a machine has not told how much it has."""
_CACHED_BYTES: Final = 512 * MIB
_CACHED_SLACK: Final = 8.0
"""By which a model that a processor's cache may hold (up to ``_CACHED_BYTES``) may exceed what its memory allows."""
_OVERLAP: Final = 3.0
"""Times a sample that its own tokens may take together: clocks of a server and of its client differ."""


def impossible(record: Record) -> tuple[str, ...]:
    """Why a record cannot be true, a sentence each; empty for one that may be."""
    found = [*_of_samples(record), *_of_memory(record), *_of_time(record)]
    if record.model:
        found += _of_file(record.model)
    if record.result:
        found += _of_result(record.result, _roofline(record))
    return tuple(dict.fromkeys(found))


def impossible_speed(tokens_per_s: float, roofline_tokens_per_s: float | None = None) -> str:
    """Why a decode speed of one sequence cannot be, in words; empty where it may be.

    ``roofline_tokens_per_s`` is what memory bandwidth allows, where that is known.
    """
    if tokens_per_s <= 0:
        return f"found {tokens_per_s:g} tokens/s, expected more than 0"
    if roofline_tokens_per_s and tokens_per_s > SLACK * roofline_tokens_per_s:
        return f"{tokens_per_s:,.0f} tokens/s, where reading the weights allows {roofline_tokens_per_s:,.0f}"
    if tokens_per_s > MOST_TOKENS_PER_S:
        return f"{tokens_per_s:,.0f} tokens/s, more than any machine writes"
    return ""


def _roofline(record: Record) -> float:
    """Tokens/s of one sequence that memory, or the processor's cache for a small model, allows; 0 if unknown."""
    roofline = record.prediction.speed.roofline_tokens_per_s if record.prediction else 0.0
    if record.model and record.model.size_bytes <= _CACHED_BYTES:
        roofline *= _CACHED_SLACK / SLACK
    return roofline


def _of_samples(record: Record) -> Iterator[str]:
    users = max(record.scenario.batch_count, 1)
    roofline = _roofline(record)
    for sample in record.samples:
        if sample.energy_joules is not None:
            yield from _of_energy(sample)
        if sample.token_count and sample.duration_s <= 0:
            yield f"{sample.label}: {sample.token_count} tokens in no time"
            continue
        timed_s = sum(sample.token_times_s)
        if timed_s > _OVERLAP * sample.duration_s + 1e-6:
            yield f"{sample.label}: its tokens took longer than the sample they are of"
        is_timed = sample.token_count and len(sample.token_times_s) >= _LEAST_TIMED_TOKENS
        if is_timed and timed_s < _LEAST_OF_THE_SAMPLE * sample.duration_s:
            yield f"{sample.label}: its tokens took {timed_s:.3g} s of the sample's {sample.duration_s:.3g} s"
        if sample.phase == "load" and (why := _of_load(record.model, sample.duration_s)):
            yield f"{sample.label}: {why}"
        if not sample.token_count or not sample.duration_s:
            continue
        rate = sample.token_count / sample.duration_s
        if sample.phase == "decode" and (
            why := impossible_speed(rate / users, roofline and roofline * users)
        ):
            yield f"{sample.label}: {why}"
        if sample.phase in {"prefill", "first_token"} and (why := _of_prompt(record, rate)):
            yield f"{sample.label}: {why}"


def _of_prompt(record: Record, tokens_per_s: float) -> str:
    """Why a prompt cannot be read so fast; two operations a weight and token are the least."""
    weights = record.model.parameter_count if record.model else 0
    needed = 2 * _LEAST_ACTIVE_RATIO * weights * tokens_per_s
    if tokens_per_s > _MOST_PROMPT_TOKENS_PER_S or needed > _MOST_FLOPS_PER_S:
        return f"{tokens_per_s:,.0f} prompt tokens/s, more than any machine computes"
    return ""


def _of_energy(sample: Sample) -> Iterator[str]:
    joules = sample.energy_joules or 0.0
    if joules < 0:
        yield f"{sample.label}: {joules:g} J, less than nothing"
    elif sample.duration_s and joules / sample.duration_s > _MOST_WATTS:
        yield f"{sample.label}: {joules / sample.duration_s:,.0f} W, more than a machine draws"
    elif joules and joules < _LEAST_WATTS * sample.duration_s:
        yield f"{sample.label}: {joules / sample.duration_s:.2g} W, less than a machine draws that computes"


def _of_load(model: ModelIdentity | None, duration_s: float) -> str:
    """Why a file cannot be loaded so fast; empty where it may, or where nobody knows its size."""
    if model and model.size_bytes > _MOST_LOADED_BYTES_PER_S * duration_s:
        return f"{model.size_bytes:,} bytes loaded in {duration_s:.2g} s"
    return ""


def _of_file(model: ModelIdentity) -> Iterator[str]:
    """Files too small or too large for the weights that they hold."""
    if not model.size_bytes or model.parameter_count < _LEAST_WEIGHTS:
        return
    bits = 8.0 * model.size_bytes / model.parameter_count
    if not _BITS_PER_WEIGHT[0] <= bits <= _BITS_PER_WEIGHT[1]:
        yield f"a file of {model.size_bytes:,} bytes for {model.parameter_count:,} weights"


def _of_result(result: ResultKind, roofline: float) -> Iterator[str]:
    """What no measurement beyond the samples can find."""
    match result:
        case Speculation():
            if not 0 <= result.acceptance_ratio <= 1:
                yield f"a share of {result.acceptance_ratio:g} of all drafts accepted"
            yield from (f"drafts make it {ratio:g} times as fast" for ratio in _beyond(result.ratios))
        case Quality():
            if result.score.perplexity < 1:
                yield f"a perplexity of {result.score.perplexity:g}, where certainty is 1"
            if (result.score.kl_divergence or 0.0) < -_ROUNDED_NATS:
                yield f"a distance of {result.score.kl_divergence:g} nats, less than none"
        case Generation() if any(nll < 0 for nll in result.token_nll):
            yield "a token with a probability above 1"
        case Load():
            yield from _of_levels(result, roofline)
        case Soak():
            yield from _of_soak(result, roofline)
        case SystemResult():
            for score in result.scores:
                if score.name in _SHARES and not 0 <= (score.value or 0.0) <= 1:
                    yield f"{score.name} of {score.value:g}, a share"


def _beyond(ratios: tuple[float, ...]) -> list[float]:
    return [ratio for ratio in ratios if not 0 < ratio <= _MOST_SPEEDUP]


def _of_levels(result: Load, roofline: float) -> Iterator[str]:
    for level in result.levels:
        if level.good_count > level.completed_count:
            yield f"{level.label}: {level.good_count} of {level.completed_count} answers within the limits"
        per_user = level.new_tokens_per_s / max(level.offered, 1.0)
        if level.new_tokens and (why := impossible_speed(per_user, roofline)):
            yield f"{level.label}: for each user {why}"


def _of_soak(result: Soak, roofline: float) -> Iterator[str]:
    if why := impossible_speed(result.sustained_tokens_per_s, roofline):
        yield f"warm: {why}"
    if (result.sustained_joules_per_token or 0.0) < 0:
        yield f"warm: {result.sustained_joules_per_token:g} J a token, less than nothing"
    for window in result.windows:
        if window.celsius is not None and not _CELSIUS[0] <= window.celsius <= _CELSIUS[1]:
            yield f"a sensor at {window.celsius:g} C"


def _of_memory(record: Record) -> Iterator[str]:
    if record.memory is None:
        return
    peak = record.memory.peak_rss_bytes
    installed = record.machine.ram_bytes
    if installed >= _LEAST_RAM_BYTES and peak > _ROUNDING * installed:
        yield f"a peak of {peak:,} bytes on a machine of {installed:,}"
    if 0 < peak < _LEAST_PROCESS_BYTES and installed >= _LEAST_RAM_BYTES:
        yield f"a process of {peak:,} bytes"
    if record.memory.peak_anonymous_bytes > _ROUNDING * peak > 0:
        yield "more anonymous memory than memory at its peak"


def _of_time(record: Record) -> Iterator[str]:
    """Samples that took many times as long as the command that took them, as milliseconds read as seconds do."""
    wall_s = record.extra.get("wall_s")
    spent_s = sum(
        sample.duration_s for sample in record.samples if sample.phase in {"prefill", "decode", "load"}
    )
    if (
        isinstance(wall_s, int | float)
        and wall_s > 0
        and spent_s > _MOST_OF_THE_WALL * wall_s + _CLOCK_SLACK_S
    ):
        yield f"samples of {spent_s:,.0f} s in a run of {wall_s:,.0f} s"
