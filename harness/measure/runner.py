"""From what a child told to a record: its samples, its memory, and whether it may be believed."""

import secrets
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness import __version__
from harness.core.errors import RefusedError
from harness.core.model import Weights
from harness.core.record import SCHEMA_VERSION, MemoryUse, ModelIdentity, Record
from harness.core.scenario import Scenario
from harness.measure.child import ChildResult
from harness.measure.machine import fingerprint
from harness.onnx.files import combined_hash, model_files, size_bytes
from harness.records.derive import disturbances


def judged(record: Record, repetitions: int) -> Record:
    """The same record, ``inconclusive`` when too few samples are undisturbed, or its result has doubts of its own."""
    reasons = disturbances(record, repetitions)
    if record.result is not None:
        reasons = [*reasons, *record.result.doubts]
    if record.outcome != "ok" or not reasons:
        return record
    return record.replace(outcome="inconclusive", detail="\n".join(reasons))


def new_record(**fields: Any) -> Record:
    """A record of now, with a new identifier that sorts by time.

    ``fields`` are those of :class:`Record`; without a ``machine`` it is this one.
    """
    now = datetime.now(UTC)
    made = {
        "schema_version": SCHEMA_VERSION,
        "run_id": f"{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03d}Z-{secrets.token_hex(4)}",
        "created": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "harness_version": __version__,
        # Without the folder of the program: paths of a home folder are nobody's business.
        "command": (Path(sys.argv[0]).name, *sys.argv[1:]),
        "machine": fields.get("machine") or fingerprint(),
    }
    return Record(**(fields | made))


def identify(path: Path, weights: Weights | None, *, name: str = "", quant: str = "") -> ModelIdentity:
    """Identity of a model with all its files, whose hash is remembered until one of them changes.

    Without ``weights`` (they cannot be read) ``quant`` says the mixture; without ``name`` it is the file's
    stem.

    Raises:
        BadDataError: A file of it is missing, or cannot be read.
    """
    identity = ModelIdentity(
        name=name or path.stem,
        quant=quant,
        size_bytes=size_bytes(path),
        sha256=combined_hash(model_files(path)),
        architecture="",
        parameter_count=0,
    )
    if weights is None:
        return identity
    return identity.replace(
        quant=weights.quant,
        architecture=weights.shape.architecture,
        parameter_count=weights.weight_count,
        synthetic=weights.synthetic,
    )


def memory_of(result: ChildResult) -> MemoryUse | None:
    """Memory of a child: what it told at its marks, and what was seen from outside.

    It is None where a mark says that the model is elsewhere. A mark that has the word ``elsewhere``, true or
    false, is about another process than the child, a server or a program: then the child's own memory does not
    count.
    """
    marks = {data["mark"]: data for name, data in result.events if name == "memory"}
    if any(data.get("elsewhere") for data in marks.values()):
        return None
    memory = result.memory
    if any("elsewhere" in data for data in marks.values()):
        memory = MemoryUse(peak_rss_bytes=0, cgroup_peak_bytes=memory.cgroup_peak_bytes)
    if "end" in marks:
        # From "loaded" on the peak counts anew, so that repeated loads do not add up.
        memory = memory.replace(peak_rss_bytes=0)
    for data in marks.values():
        memory = memory.replace(
            peak_rss_bytes=max(memory.peak_rss_bytes, data["peak_rss_bytes"]),
            peak_anonymous_bytes=max(memory.peak_anonymous_bytes, data["anonymous_bytes"]),
            peak_file_bytes=max(memory.peak_file_bytes, data["file_bytes"]),
        )
    return memory


def check_scenario(scenario: Scenario) -> None:
    """RefusedError where the scenario does not fit its own context, or a count is out of range."""
    s = scenario
    most = max(s.prompt_tokens, s.new_tokens)
    needed = (s.depth_tokens + most) * s.batch_count
    if min(s.prompt_tokens, s.new_tokens, s.depth_tokens) < 0:
        raise RefusedError("prompt, new and depth are counts of tokens: at least 0")
    if needed == 0:
        raise RefusedError("nothing to measure: give a prompt or new tokens")
    if needed > s.context_tokens:
        together = f" of {s.batch_count} sequences" if s.batch_count > 1 else ""
        raise RefusedError(
            f"depth {s.depth_tokens} + {most} tokens{together} do not fit a context of {s.context_tokens}: "
            f"raise --context to at least {needed}"
        )
