"""From loose values of strangers to a record: numbers are checked, names are kept short, nothing is trusted."""

import hashlib
import re
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from harness import __version__
from harness.domain.record import (
    SCHEMA_VERSION,
    UNKNOWN_MACHINE,
    EngineIdentity,
    ModelIdentity,
    Phase,
    RunRecord,
    Sample,
)
from harness.domain.scenario import Scenario
from harness.errors import BadDataError
from harness.records.store import decode, encode

SAMPLES_MAX = 100_000
UNDATED = "1970-01-01T00:00:00+00:00"
"""When a result was made that does not say so."""
LEAST, MOST = 1e-15, 1e19
"""Of any amount, nanoseconds since 1970 among them: powers of what is beyond are no numbers any more."""


def number(value: Any, default: float = 0.0) -> float:
    """A number that an amount can be (0, or ``LEAST`` to ``MOST``), from a number or text; else the default."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return default
    return found if found == 0 or LEAST <= found <= MOST else default


def count(value: Any, default: int = 0) -> int:
    """The same as a whole number."""
    return int(min(number(value, default), 2**53))


def text(value: Any, most: int = 200) -> str:
    """Text of bounded length; empty for anything else."""
    return value[:most] if isinstance(value, str) else ""


def dated(value: Any) -> str:
    """When, as ISO 8601; ``UNDATED`` for what is no such time."""
    try:
        return datetime.fromisoformat(text(value)).isoformat()
    except ValueError:
        return UNDATED


def part(document: Any, *names: str) -> dict[str, Any]:
    """The object under a path of keys; empty where something on the way is missing or no object."""
    for name in names:
        document = document.get(name) if isinstance(document, dict) else None
    return document if isinstance(document, dict) else {}


def sample(phase: Phase, label: str, token_count: int, duration_s: float, at: float = 0.0) -> Sample:
    """One sample of another tool: nothing is known of the machine's state."""
    return Sample(phase=phase, label=label, token_count=token_count, duration_s=duration_s, started_unix_s=at)


def record(
    source: object,
    *,
    tool: str,
    created: str = UNDATED,
    samples: list[Sample],
    name: str,
    quant: str = "",
    size_bytes: int = 0,
    parameter_count: int = 0,
    architecture: str = "",
    cpu: str = "",
    device: str = "",
    engine_version: str = "",
    engine_build: str = "",
    thread_count: int = 0,
    scenario: Scenario | None = None,
    extra: dict[str, Any] | None = None,
    detail: str = "",
) -> RunRecord:
    """A record of ``samples``; its identifier is made from its content, so that reading twice gives the same.

    Raises:
        BadDataError: There are no samples, or too many; or an amount is none that a record may have.
    """
    if not samples:
        raise BadDataError(str(source), "", "no measurement", f"results of {tool}")
    if len(samples) > SAMPLES_MAX:
        raise BadDataError(str(source), "", f"{len(samples)} samples", f"at most {SAMPLES_MAX}")
    stamp = re.sub(r"[^0-9T]", "", created)[:15] or "undated"
    digest = hashlib.sha256(repr((tool, name, quant, created, samples)).encode()).hexdigest()[:8]
    made = RunRecord(
        schema_version=SCHEMA_VERSION,
        run_id=f"{stamp}-{tool}-{digest}",
        created=created,
        harness_version=__version__,
        command=(f"imported from {tool}",),
        workload="generate",
        machine=replace(UNKNOWN_MACHINE, cpu_model=cpu, device=device or cpu or UNKNOWN_MACHINE.device),
        scenario=scenario or Scenario(thread_count=thread_count),
        outcome="ok",
        detail=detail,
        model=ModelIdentity(
            name=name or "unknown model",
            quant=quant,
            size_bytes=size_bytes,
            sha256="",
            architecture=architecture,
            parameter_count=parameter_count,
        ),
        engine=EngineIdentity(name=tool, version=engine_version, build=engine_build, thread_count=thread_count),
        samples=tuple(samples),
        extra={"imported_from": tool} | (extra or {}),
    )
    return decode(encode(made), str(source))  # what cannot be read back is not kept
