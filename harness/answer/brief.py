"""An answer in a few fields, for agents, frames and pages: what decides, and nothing else."""

from typing import Any, Final

from harness.answer.answer import Answer
from harness.core.base import Frozen
from harness.core.prediction import Interval

_MOST_NOTES: Final = 3
ENDS: Final = ("", "_low", "_high")
"""What a column of a frame is called after: the middle of an interval, and its ends."""


class Brief(Frozen):
    """What decides.

    Attributes:
        verdict: ``fits``, ``fits with streaming``, ``too slow`` or ``does not fit``.
        way: What lies where: ``whole``, ``layers``, ``experts``, ...
        decode_tokens_per_s: Speed of writing, of all users together; None where it does not run.
        prefill_tokens_per_s: Speed of reading.
        first_token_s: Until the first token, loaded.
        joules_per_token: Of the chip; None where nobody stated its power.
        needed_bytes, available_bytes: Memory in the pool that is fullest.
        command: What starts it; empty where nobody types one.
        evidence: What the speed rests on: ``timed``, ``taught``, ``chip``, ``relatives`` or ``law``.
    """

    model: str
    quant: str
    device: str
    verdict: str
    way: str
    context_tokens: int
    decode_tokens_per_s: Interval | None
    prefill_tokens_per_s: Interval | None
    first_token_s: Interval | None
    joules_per_token: Interval | None
    needed_bytes: int
    available_bytes: int
    command: str
    evidence: str
    notes: tuple[str, ...] = ()


def brief_of(found: Answer) -> Brief:
    """The few fields of an answer."""
    speed, verdict = found.prediction.speed, found.prediction.verdict
    runs = found.runs
    energy = found.energy
    return Brief(
        model=found.model.name,
        quant=found.quant,
        device=found.device.name,
        verdict=verdict.word,
        way=found.best.kind.value if runs else "",
        context_tokens=found.scenario.context_tokens,
        decode_tokens_per_s=speed.decode_tokens_per_s if runs and not found.reads_only else None,
        prefill_tokens_per_s=speed.prefill_tokens_per_s if runs else None,
        first_token_s=speed.ttft_warm_s if runs else None,
        joules_per_token=energy.joules_per_token if energy is not None and runs else None,
        needed_bytes=verdict.needed_bytes,
        available_bytes=verdict.available_bytes,
        command=next(iter(found.commands), ""),
        evidence=speed.decode_evidence.basis.value,
        notes=found.notes[:_MOST_NOTES],
    )


def row_of(brief: Brief) -> dict[str, Any]:
    """The same as one flat row of a frame: of each interval its middle and its ends."""
    row: dict[str, Any] = {}
    for name in Brief.__struct_fields__:
        value = getattr(brief, name)
        if name.endswith(("_s", "_per_token")):
            row[name] = None if value is None else value.mid
            row[f"{name}_low"] = None if value is None else value.low
            row[f"{name}_high"] = None if value is None else value.high
        elif name != "notes":
            row[name] = value
    return row
