"""Run a model that is larger than the RAM it may use, in a child that really is held to that limit."""

from functools import partial
from pathlib import Path

import msgspec
from msgspec.structs import replace

from harness.catalog.file_hash import sha256_of
from harness.catalog.gguf import read_gguf
from harness.domain.drafting import Decoding
from harness.domain.record import RunRecord
from harness.domain.result import Stream
from harness.domain.streaming import ExpertOutlook, ExpertPlan, ExpertUse, StreamPlan, StreamReport
from harness.measure.child import ChildResult
from harness.measure.jobs.stream import StreamJob
from harness.measure.pipeline import How, Measurement, Pipeline, events_named, key_of
from harness.measure.runner import identify
from harness.predict.moe import DEFAULT_SKEW, Policy, hit_ratio, streamed_token_s
from harness.runtimes.llamacpp.expert_cache import CachePolicy
from harness.runtimes.llamacpp.speculative import total


def stream(job: StreamJob, *, predicted_tokens_per_s: float | None = None, how: How = How()) -> RunRecord:
    """Generate under a RAM budget: a record whose result is a :class:`~harness.domain.result.Stream`.

    A budget that is too small, a failure of the engine and a kill for going over the limit are its outcome.

    Raises:
        BadDataError: The model is no GGUF file.
        CouldNotRunError: Another measured run held the machine for too long.
    """
    model = Path(job.model).absolute()
    draft = None if job.draft in {"", "lookup"} else Path(job.draft).absolute()
    job = replace(job, model=str(model), draft=str(draft or job.draft))
    identity = identify(model, read_gguf(model).weights())
    beside = [sha256_of(draft)] if draft else []
    how = how._replace(limits=how.limits._replace(memory_bytes=job.budget_bytes))
    with Pipeline(how) as pipeline:
        plan = Measurement(
            workload="stream",
            entry="harness.measure.jobs.stream:run",
            job=job,
            scenario=job.scenario,
            read=partial(_read, job, predicted_tokens_per_s),
            runtime="llamacpp",
            model=identity,
            wanted_count=len(job.prompts),
            key=key_of("stream", identity.sha256, *beside, job, pipeline.machine.fingerprint),
        )
        pipeline.heard.begin(model.stem, len(job.prompts))
        return pipeline.measure(plan)


def _read(job: StreamJob, predicted_tokens_per_s: float | None, ended: ChildResult) -> Stream | None:
    """What the child found, over the prompts that it got through; None when it got through none."""
    events = dict(ended.events)
    answers = [msgspec.convert(d, Decoding) for d in events_named(ended, "answer")]
    if not answers:
        return None
    chosen: dict[str, str] = events.get("schedule", {"name": "", "reason": ""})
    costs = events.get("costs", {"verify_s": {}, "draft_s": 0.0})
    by_expert = chosen["name"] == "experts"
    plan = msgspec.convert(events["plan"], StreamPlan) if "plan" in events and not by_expert else None
    expert_plan = msgspec.convert(events["plan"], ExpertPlan) if by_expert else None
    report = msgspec.convert(events["report"], StreamReport) if "report" in events else None
    use = msgspec.convert(events["use"], ExpertUse) if "use" in events else None
    experts = None
    if expert_plan and report and use:
        experts = expert_outlook(Path(job.model), expert_plan, report, use, job.policy)
    ratio = experts.bound_s / experts.token_s if experts else None
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
        policy=job.policy if by_expert else "",
        plan=plan,
        expert_plan=expert_plan,
        report=report,
        expert_use=use,
        experts=experts,
        bound_ratio=ratio,
        verify_s=msgspec.convert(costs["verify_s"], dict[int, float], strict=False),  # keys came as JSON's strings
        draft_s=costs["draft_s"],
        predicted_tokens_per_s=predicted_tokens_per_s,
    )


def expert_outlook(
    model: Path, plan: ExpertPlan, report: StreamReport, use: ExpertUse, policy: CachePolicy
) -> ExpertOutlook | None:
    """Set predictions beside what was measured; None when everything fitted or no pass had a single token."""
    if not plan.streams or not use.single_pass_count or not use.single_wanted_count:
        return None
    passes = use.single_pass_count
    assumed = 0.0 if read_gguf(model).synthetic else DEFAULT_SKEW  # a random router chooses evenly
    law: Policy = "lru" if policy == "lru" else "lfu"  # of independent choices the likeliest are the most wanted
    hit = hit_ratio(plan.expert_count, plan.cached_count, skew=assumed, policy=law, used_count=plan.used_count)
    token_s, stall_s = use.single_duration_s / passes, use.single_stall_s / passes
    read_bytes = use.single_read_bytes / passes
    disk = report.probe_bytes_per_s
    ranked = sorted((n for counts in use.counts for n in counts), reverse=True)
    kept = min(int(plan.cached_count * plan.layer_count), len(ranked))
    return ExpertOutlook(
        skew=assumed,
        predicted_hit_ratio=hit,
        hit_ratio=use.single_hit_count / use.single_wanted_count,
        hindsight_hit_ratio=sum(ranked[:kept]) / sum(ranked),
        predicted_read_bytes=plan.active_expert_bytes * (1 - hit),
        read_bytes=read_bytes,
        predicted_token_s=streamed_token_s(plan.active_expert_bytes, hit, disk, token_s - stall_s),
        token_s=token_s,
        stall_s=stall_s,
        bound_s=max(token_s - stall_s, read_bytes / disk),
        reached_bytes_per_s=read_bytes / stall_s if stall_s else 0.0,
    )
