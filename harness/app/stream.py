"""Run a model that is larger than the RAM it may use, in a child that really is held to that limit."""

from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from harness.app.speculate import measure_file
from harness.domain.drafting import Decoding, DraftAdvice
from harness.domain.record import RunRecord
from harness.domain.result import Stream
from harness.domain.streaming import ExpertPlan, ExpertUse, StreamPlan, StreamReport
from harness.measure.child import ChildResult
from harness.measure.jobs.stream import StreamJob
from harness.measure.pipeline import How
from harness.runtimes.llamacpp.speculative import total

_PARTS: Final = {
    "plan": StreamPlan,
    "expert_plan": ExpertPlan,
    "report": StreamReport,
    "expert_use": ExpertUse,
}
"""Events of the child that are parts of the result."""


def stream(
    job: StreamJob, *, predicts: bool = True, predicted_tokens_per_s: float | None = None, how: How = How()
) -> RunRecord:
    """Generate under a RAM budget: a record whose result is a :class:`~harness.domain.result.Stream`.

    With a draft its speed is predicted from costs that are timed on the streamed model first, if it
    ``predicts``. A budget that is too small, a failure of the engine and a kill for going over the limit are
    its outcome.

    Raises:
        BadDataError: The model is no GGUF file.
        CouldNotRunError: Another measured run held the machine for too long.
    """
    model = Path(job.model).absolute()
    if job.draft in {"", "lookup"}:
        beside = []
    else:
        beside = [Path(job.draft).absolute()]
    job = job.replace(model=str(model), draft=str(beside[0]) if beside else job.draft)
    how = how._replace(limits=how.limits._replace(memory_bytes=job.budget_bytes))
    read = partial(_read, job, predicts, predicted_tokens_per_s)

    def hear(event: str, data: Any) -> None:
        if event == "advice" and predicts:
            how.listener.say(f"advice: {msgspec.convert(data, DraftAdvice, strict=False).words}")

    return measure_file(
        "stream", job, model, beside, read, wanted_count=len(job.prompts), how=how, on_event=hear
    )


def _read(
    job: StreamJob, predicts: bool, predicted_tokens_per_s: float | None, ended: ChildResult
) -> Stream | None:
    """What the child found, over the prompts that it got through; None when it got through none."""
    events = dict(ended.events)
    answers = ended.told("answer", Decoding)
    if not answers:
        return None
    chosen: dict[str, str] = events.get("schedule", {"name": "", "reason": ""})
    advice = None
    if "advice" in events:
        advice = msgspec.convert(events["advice"], DraftAdvice, strict=False)
    if advice and predicts:
        predicted_tokens_per_s = advice.speedup_ratio / advice.verify_s[1]
    parts: dict[str, Any] = {
        name: msgspec.convert(events[name], kind) for name, kind in _PARTS.items() if name in events
    }
    plan, report, use = (parts.get(name) for name in ("plan", "report", "expert_use"))
    ratio = None
    if use and report:
        ratio = use.bound_ratio(report.probe_bytes_per_s)
    if plan and report and plan.slot_bytes and report.pass_count:
        ratio = report.bound_s(plan.streamed_bytes) / (report.duration_s / report.pass_count)
    return Stream(
        mode=job.mode,
        draft=Path(job.draft).name,
        budget_bytes=job.budget_bytes,
        enforced=ended.memory.cgroup_peak_bytes is not None,
        decoding=total(answers),
        outputs=tuple(a.tokens for a in answers),
        schedule=chosen["name"],
        schedule_reason=chosen["reason"],
        bound_ratio=ratio,
        verify_s=advice.verify_s if advice else {},
        draft_s=advice.draft_s if advice else None,
        predicted_tokens_per_s=predicted_tokens_per_s,
        **parts,
    )
