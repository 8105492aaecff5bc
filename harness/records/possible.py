"""What cannot be: one law of the figures that bytes, operations, counts and times allow, for every door.

A record, an import, an answer of a server or a pasted row that breaks it is kept and marked. No gate counts it, no page
headlines it, nothing is learnt from it.
"""

from collections.abc import Iterator
from typing import Final

from harness.core.record import Record, Sample
from harness.core.units import MIB

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
    return tuple(dict.fromkeys([*_of_samples(record), *_of_memory(record), *_of_time(record)]))


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


def _of_samples(record: Record) -> Iterator[str]:
    users = max(record.scenario.batch_count, 1)
    roofline = record.prediction.speed.roofline_tokens_per_s if record.prediction else 0.0
    if record.model and record.model.size_bytes <= _CACHED_BYTES:
        roofline *= _CACHED_SLACK / SLACK
    for sample in record.samples:
        if sample.energy_joules is not None:
            yield from _of_energy(sample)
        if sample.token_count and sample.duration_s <= 0:
            yield f"{sample.label}: {sample.token_count} tokens in no time"
            continue
        if sum(sample.token_times_s) > _OVERLAP * sample.duration_s + 1e-6:
            yield f"{sample.label}: its tokens took longer than the sample they are of"
        if not sample.token_count or not sample.duration_s:
            continue
        rate = sample.token_count / sample.duration_s
        if sample.phase == "decode" and (
            why := impossible_speed(rate / users, roofline and roofline * users)
        ):
            yield f"{sample.label}: {why}"
        if sample.phase == "prefill" and (why := _of_prompt(record, rate)):
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


def _of_memory(record: Record) -> Iterator[str]:
    if record.memory is None:
        return
    peak = record.memory.peak_rss_bytes
    installed = record.machine.ram_bytes
    if installed >= _LEAST_RAM_BYTES and peak > _ROUNDING * installed:
        yield f"a peak of {peak:,} bytes on a machine of {installed:,}"
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
