"""Run a model that is larger than the RAM it may use, in a child that really is held to that limit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from harness.app._stream_job import Mode, StreamJob
from harness.app.expert_outlook import ExpertOutlook, expert_outlook
from harness.domain.base import Frozen
from harness.domain.record import MemoryUse
from harness.domain.scenario import Scenario
from harness.errors import EngineError, RefusedError
from harness.measure.child import Limits, run_child
from harness.runtimes.llamacpp.expert_cache import CachePolicy
from harness.runtimes.llamacpp.expert_layout import ExpertPlan
from harness.runtimes.llamacpp.expert_streaming import ExpertUse
from harness.runtimes.llamacpp.schedules import Schedule
from harness.runtimes.llamacpp.speculative import Generation, total
from harness.runtimes.llamacpp.stream_plan import StreamPlan, StreamReport

TARGET: Final = "harness.app._stream_job:run"


class StreamResult(Frozen, frozen=True, kw_only=True):
    """What came out.

    Attributes:
        model: Model file.
        draft: Draft model file, ``lookup``, or empty.
        mode: Streamed, or mapped plainly.
        budget_bytes: Limit of the child's control group.
        enforced: Whether a control group held the child to it (else a watchdog on its private memory).
        generation: Sums over all prompts.
        outputs: New tokens of each prompt.
        schedule: ``blocks`` or ``experts``; empty when mapped plainly.
        schedule_reason: Why blocks are streamed although the model has experts; empty otherwise.
        policy: Which experts stay.
        plan: What was pinned and streamed, block by block; None otherwise.
        expert_plan: What was pinned and how much room experts had; None when no experts were streamed.
        report: What was read and waited for; None when mapped plainly.
        expert_use: What the router wanted, and what of it was in memory; None when no experts were streamed.
        experts: Predicted and measured hits, bytes and times of a token; None when no experts were read.
        bound_ratio: Least time of a pass by the bound / measured time of a pass; None when nothing was streamed.
        memory: Memory of the child.
        verify_s: Seconds of a pass by its tokens, measured before the prompts; empty without a draft.
        draft_s: Seconds to draft a token, measured with it.
    """

    model: str
    draft: str
    mode: Mode
    budget_bytes: int
    enforced: bool
    generation: Generation
    outputs: tuple[tuple[int, ...], ...]
    memory: MemoryUse
    schedule: str = ""
    schedule_reason: str = ""
    policy: str = ""
    plan: StreamPlan | None = None
    expert_plan: ExpertPlan | None = None
    report: StreamReport | None = None
    expert_use: ExpertUse | None = None
    experts: ExpertOutlook | None = None
    bound_ratio: float | None = None
    verify_s: dict[int, float] = {}
    draft_s: float = 0.0


def stream(
    model: Path,
    budget_bytes: int,
    prompts: Sequence[str],
    *,
    draft: str = "",
    mode: Mode = "streamed",
    new_tokens: int = 24,
    scenario: Scenario | None = None,
    schedule: Schedule = "auto",
    policy: CachePolicy = "likely",
    wall_s: float = 1800.0,
) -> StreamResult:
    """Generate under a RAM budget.

    Args:
        model: GGUF file.
        budget_bytes: What the child may use in all.
        prompts: Texts.
        draft: Draft model file whose memory is part of the budget; ``lookup``; empty for none.
        mode: ``mapped`` leaves residency to the system, for comparison.
        new_tokens: Tokens after each prompt.
        scenario: Context and so on; 512 tokens of context when None.
        schedule: What is streamed: blocks, experts, or what suits the model and the budget.
        policy: Which experts stay.
        wall_s: Longest time.

    Raises:
        RefusedError: The budget is too small, this system cannot do it, or the vocabularies differ.
        EngineError: The engine failed, or was killed for going over the limit.
    """
    job = StreamJob(
        model=str(model.absolute()),
        prompts=tuple(prompts),
        budget_bytes=budget_bytes,
        mode=mode,
        draft=draft if draft in {"", "lookup"} else str(Path(draft).absolute()),
        new_tokens=new_tokens,
        scenario=scenario or Scenario(context_tokens=512),
        schedule=schedule,
        policy=policy,
    )
    result = run_child(TARGET, job, limits=Limits(wall_s=wall_s, memory_bytes=budget_bytes))
    if result.outcome != "ok":
        error: dict[str, Any] = next((d for n, d in result.events if n == "error"), {})
        raise (RefusedError if error.get("kind") == "RefusedError" else EngineError)(
            f"{result.outcome}: {result.detail}"
        )
    events = dict(result.events)
    answers = [msgspec.convert(d, Generation) for n, d in result.events if n == "answer"]
    chosen: dict[str, str] = events.get("schedule", {"name": "", "reason": ""})
    costs: dict[str, Any] = events.get("costs", {"verify_s": {}, "draft_s": 0.0})
    by_expert = chosen["name"] == "experts"
    plan = msgspec.convert(events["plan"], StreamPlan) if "plan" in events and not by_expert else None
    expert_plan = msgspec.convert(events["plan"], ExpertPlan) if by_expert else None
    report = msgspec.convert(events["report"], StreamReport) if "report" in events else None
    use = msgspec.convert(events["use"], ExpertUse) if "use" in events else None
    experts = expert_outlook(model, expert_plan, report, use, policy) if expert_plan and report and use else None
    ratio = experts.bound_s / experts.token_s if experts else None
    if plan and report and plan.slot_bytes and report.pass_count:
        ratio = report.bound_s(plan.streamed_bytes) / (report.duration_s / report.pass_count)
    return StreamResult(
        model=model.name,
        draft=Path(draft).name,
        mode=mode,
        budget_bytes=budget_bytes,
        enforced=result.memory.cgroup_peak_bytes is not None,
        generation=total(answers),
        outputs=tuple(a.tokens for a in answers),
        memory=result.memory,
        schedule=chosen["name"],
        schedule_reason=chosen["reason"],
        policy=policy if by_expert else "",
        plan=plan,
        expert_plan=expert_plan,
        report=report,
        expert_use=use,
        experts=experts,
        bound_ratio=ratio,
        verify_s=msgspec.convert(costs["verify_s"], dict[int, float], strict=False),  # keys came as JSON's strings
        draft_s=costs["draft_s"],
    )
