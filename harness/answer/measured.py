"""What was measured here beside what is predicted: the newest run of the same thing."""

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from harness.answer.case import Case
from harness.core.base import Frozen
from harness.core.errors import HarnessError
from harness.core.way import Way

if TYPE_CHECKING:
    from harness.core.record import Record  # it brings every kind of result, and questions need none


class MeasuredHere(Frozen):
    """What the newest undisturbed run of the same thing on this machine measured.

    Attributes:
        created: When, RFC 3339, UTC.
        runtime: Software that ran it.
        first_token_s: None where the run timed none.
        peak_bytes: None where nobody watched.
    """

    run_id: str
    created: str
    runtime: str
    decode_tokens_per_s: float
    first_token_s: float | None = None
    peak_bytes: int | None = None


def measured_here(case: Case, way: Way) -> MeasuredHere | None:
    """Find this machine's newest run of the same file, engine, threads and context, or None."""
    from harness.measure.pipeline import open_history
    from harness.records.derive import summarise  # it brings numpy, and most questions need no history
    from harness.records.possible import impossible

    with suppress(HarnessError):
        history = open_history()
        if not history.path.exists():
            return None
        for record in history.records(limit=50, workload="generate", outcome="ok", model=case.model.name):
            if impossible(record) or not _is_same(record, case, way):
                continue
            tests = summarise(record)
            decode = tests.test("decode")
            first = tests.test("first_token")
            if decode is None or decode.value is None:
                continue
            return MeasuredHere(
                run_id=record.run_id,
                created=record.created,
                runtime=record.runtime,
                decode_tokens_per_s=decode.value,
                first_token_s=first.value if first else None,
                peak_bytes=(record.memory.peak_rss_bytes or None) if record.memory else None,
            )
    return None


def _is_same(record: "Record", case: Case, way: Way) -> bool:
    """Whether a run was of this model, as it is asked about, on this machine as it is now."""
    model = record.model
    asked = way.scenario
    ran = record.scenario
    if model is None or record.target != "local" or record.machine.fingerprint != case.device.machine:
        return False
    same_file = model.name == case.model.name and model.quant == case.model.quant
    same = all(getattr(asked, name) == getattr(ran, name) for name in _SAME_FIELDS)
    threads = asked.thread_count or ran.thread_count
    return same_file and same and threads == ran.thread_count and ran.api in {"", asked.api}


_SAME_FIELDS: Final = (
    *("context_tokens", "prompt_tokens", "depth_tokens", "batch_count"),
    *("kv_type", "repack", "mmap", "placement"),
)
"""Fields of a scenario in which two runs must agree."""
