"""From loose values of strangers to a record: numbers are checked, names are kept short, nothing is trusted."""

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from harness import __version__
from harness.domain.base import Frozen, shipped_table
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

S = TypeVar("S", bound=Frozen)

TOOLS: Final = shipped_table("data/imports.toml")
"""What is where in each tool's results."""
SAMPLES_MAX: Final = 100_000
UNDATED: Final = "1970-01-01T00:00:00+00:00"
"""When a result was made that does not say so."""
LEAST, MOST = 1e-15, 1e19
"""Of any amount, nanoseconds since 1970 among them: powers of what is beyond are no numbers any more."""
_LAST_UNIX_S: Final = 4e9
_DEEPEST: Final = 6
_MODEL: Final = ModelIdentity(
    name="unknown model", quant="", size_bytes=0, sha256="", architecture="", parameter_count=0
)


def number(value: Any, default: float = 0.0) -> float:
    """A number that an amount can be (0, or ``LEAST`` to ``MOST``), from a number or text; else the default."""
    try:
        amount = float(value)
    except (TypeError, ValueError):
        return default
    return amount if amount == 0 or LEAST <= amount <= MOST else default


def count(value: Any, default: int = 0) -> int:
    """The same as a whole number."""
    return int(min(number(value, default), 2**53))


def text(value: Any, most: int = 200) -> str:
    """Text of bounded length, of text or a whole number; empty for anything else."""
    return str(value)[:most] if isinstance(value, str | int) else ""


def dated(value: Any) -> str:
    """When, as ISO 8601, of such a text or of seconds since 1970; ``UNDATED`` for what is no such time."""
    if isinstance(value, int | float):
        return datetime.fromtimestamp(min(number(value), _LAST_UNIX_S), UTC).isoformat()
    try:
        return datetime.fromisoformat(text(value)).isoformat()
    except ValueError:
        return UNDATED


def at(document: Any, path: str) -> Any:
    """What stands at a path of ``imports.toml``; None where there is nothing.

    ``**.name`` is the first text under that key, however deep.
    """
    value: Any = None
    for way in path.split("|"):
        if way.startswith("**."):
            value = _anywhere(document, way.removeprefix("**."), _DEEPEST)
        else:
            value = document
            for name in way.split("."):
                value = value.get(name) if isinstance(value, dict) else None
        if value not in (None, ""):
            return value
    return None


def _anywhere(document: Any, name: str, depth: int) -> str:
    if depth == 0 or not isinstance(document, dict):
        return ""
    here = text(document.get(name))
    return here or next((value for each in document.values() if (value := _anywhere(each, name, depth - 1))), "")


def filled(blank: S, paths: Mapping[str, str], *documents: Any) -> S:
    """``blank`` with the fields whose paths lead to a value in one of the documents: text, or whole numbers."""
    values: dict[str, Any] = {}
    for name, path in paths.items():
        value = next((each for document in documents if (each := at(document, path)) is not None), None)
        kept = count(value) if isinstance(getattr(blank, name), int) else text(value).strip()
        values |= {name: kept} if kept else {}
    return blank.replace(**values)


def sample(phase: Phase, label: str, token_count: int, duration_s: float, at: float = 0.0) -> Sample:
    """One sample of another tool: nothing is known of the machine's state."""
    return Sample(phase=phase, label=label, token_count=token_count, duration_s=duration_s, started_unix_s=at)


def record(
    source: object, tool: str, samples: list[Sample], *documents: Any, scenario: Scenario | None = None, **model: Any
) -> RunRecord:
    """A record of ``samples``; its identifier is made from its content, so that reading twice gives the same.

    What it is of stands in the ``documents``, where ``imports.toml`` says; ``model`` are fields of the model that are
    known better.

    Raises:
        BadDataError: There are no samples, or too many; or an amount is none that a record may have.
    """
    if not 0 < len(samples) <= SAMPLES_MAX:
        size = f"{len(samples)} samples" if samples else "no measurement"
        raise BadDataError(str(source), "", size, f"results of {tool}, at most {SAMPLES_MAX} samples")
    table = TOOLS.get(tool, {})
    created = dated(next((v for d in documents if (v := at(d, table.get("created", ""))) is not None), None))
    identity = filled(_MODEL, table.get("model", {}), *documents)
    identity = identity.replace(**{"name": identity.name.rpartition("/")[2]} | {k: v for k, v in model.items() if v})
    engine = EngineIdentity(name=tool, version="", build="", thread_count=0)
    engine = filled(engine, table.get("engine", {}), *documents)
    stamp = re.sub(r"[^0-9T]", "", created)[:15]
    content = (tool, identity.name, identity.quant, created, samples)
    made = RunRecord(
        schema_version=SCHEMA_VERSION,
        run_id=f"{stamp}-{tool}-{hashlib.sha256(repr(content).encode()).hexdigest()[:8]}",
        created=created,
        harness_version=__version__,
        command=(f"imported from {tool}",),
        workload="generate",
        machine=filled(UNKNOWN_MACHINE, table.get("machine", {}), *documents),
        scenario=scenario or Scenario(thread_count=engine.thread_count),
        outcome="ok",
        detail=table.get("detail", ""),
        model=identity,
        engine=engine,
        samples=tuple(samples),
        extra={"imported_from": tool},
    )
    return decode(encode(made), str(source))  # what cannot be read back is not kept
