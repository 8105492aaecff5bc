"""Runs that a child makes of one file: with a draft beside without, and in less RAM than the model needs."""

from collections.abc import Callable
from functools import partial
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Final

import msgspec

from harness.core.drafting import Decoding, DraftAdvice
from harness.core.errors import BadDataError
from harness.core.foreign import json_of, read_limited, typed
from harness.core.paths import cache_dir
from harness.core.record import Record
from harness.core.result import Result, Speculation, Stream
from harness.core.streaming import ExpertPlan, ExpertUse, StreamPlan, StreamReport
from harness.measure import machine
from harness.measure.child import ChildResult, Limits, run_helper
from harness.measure.jobs.speculate import SpeculationJob
from harness.measure.jobs.stream import StreamJob
from harness.measure.pipeline import How, Measurement, Pipeline, engine_of, key_of, make
from harness.measure.runner import identify
from harness.models.file_hash import sha256_of
from harness.models.gguf import read_weights
from harness.runtimes.llamacpp.speculative import CostTable, total
from harness.runtimes.llamacpp.stream_plan import expert_layout_of

_PARTS: Final = {
    "plan": StreamPlan,
    "expert_plan": ExpertPlan,
    "report": StreamReport,
    "expert_use": ExpertUse,
}
"""Events of the child that are parts of the result."""
_CONTROL_TOKENS: Final = 24
PROMPT_CLASSES: Final = ("code", "prose")
_PROMPTS: Final[Any] = Annotated[
    tuple[Annotated[str, msgspec.Meta(min_length=1)], ...], msgspec.Meta(min_length=1)
]


def load_prompts(source: str, count: int | None = None) -> tuple[str, ...]:
    """Prompts of a shipped class (``code``, ``prose``), or of a JSON file with a list of strings.

    With ``count``, only so many from the beginning are read.

    Raises:
        BadDataError: The file is no such list, or a shorter one.
    """
    shipped = files("harness") / "data" / "prompts" / f"{source}.json"
    data = read_limited(shipped if source in PROMPT_CLASSES else Path(source))
    prompts: tuple[str, ...] = typed(
        json_of(data, source, "a JSON list of non-empty strings"), _PROMPTS, source
    )
    if len(prompts) < (count or 1):
        raise BadDataError(source, "", f"{len(prompts)} prompts", f"at least {count or 1}")
    return prompts[:count]


def fastest_copy(draft: Path, limits: Limits = Limits()) -> Path:  # noqa: B008
    """A draft with every matrix in plain Q4_0, the output matrix too: made once, and kept in the cache.

    Of a draft, whose output only has to be guessed from, that is the fastest form. The limits are the
    quantizer's.

    Raises:
        RefusedError: The quantizer does not take the file.
        EngineError: The quantizer failed.
    """
    about = draft.stat()
    of_source = (
        f"{about.st_size}-{about.st_mtime_ns}"  # in the folder: the file's name is what people are shown
    )
    path = cache_dir() / "drafts" / of_source / f"{draft.stem}-Q4_0-pure.gguf"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    job = {"source": str(draft.absolute()), "quant": "Q4_0", "pure": True}
    return make("harness.runtimes.llamacpp.quantize:run_quantize", job, path, limits=limits)


def speculate(
    job: SpeculationJob, *, how: How = How(), on_advice: Callable[[DraftAdvice], None] | None = None
) -> Record:
    """Measure the costs, say whether speculation will pay, then run every prompt both ways.

    The first four prompts are the pilot's where there are at least eight; ``on_advice`` is told before the
    run begins. The record's result is a :class:`~harness.core.result.Speculation`; different vocabularies,
    a prompt that does not fit the context and a failure of the engine are its outcome.

    Raises:
        BadDataError: The target is no GGUF file.
        CouldNotRunError: Another measured run held the machine for too long.
    """
    count = len(job.split()[1]) * job.repetitions
    path = Path(job.target).absolute()
    job = job.replace(target=str(path))
    return _measured("speculate", job, path, read, count, how=how, on_advice=on_advice)


def _measured(
    workload: str,
    job: SpeculationJob | StreamJob,
    path: Path,
    read: Callable[[ChildResult], Result | None],
    wanted_count: int,
    *,
    how: How,
    on_advice: Callable[[DraftAdvice], None] | None,
) -> Record:
    """Measure a GGUF file, with the draft of the job, by the job of that name, with the errors of :func:`speculate`."""
    hashes: list[str] = []
    if job.draft not in {"", "lookup"}:
        draft = Path(job.draft).absolute()
        hashes = [sha256_of(draft)]
        job = job.replace(draft=str(draft))

    def hear(event: str, data: Any) -> None:
        if event == "advice" and on_advice:
            on_advice(msgspec.convert(data, DraftAdvice, strict=False))

    model = identify(path, read_weights(path))
    with Pipeline(how) as pipeline:
        decides = engine_of("llamacpp"), model.sha256, *hashes, job, pipeline.machine.fingerprint
        plan = Measurement(
            workload=workload,
            entry=f"harness.measure.jobs.{workload}:run",
            job=job,
            scenario=job.scenario,
            read=read,
            runtime="llamacpp",
            model=model,
            wanted_count=wanted_count,
            key=key_of(workload, *decides),
        )
        pipeline.heard.begin(path.stem, wanted_count * (2 if workload == "speculate" else 1))
        return pipeline.measure(plan, on_event=hear)


def read(ended: ChildResult) -> Speculation | None:
    """What the child found, over the prompts that it got through; None when it got through none."""
    advices = ended.told("advice")
    answers = ended.told("answer")
    if not advices or not answers:
        return None
    slow = [msgspec.convert(a["plain"], Decoding) for a in answers]
    fast = [msgspec.convert(a["speculative"], Decoding) for a in answers]
    differences = tuple({"prompt": i, **a["difference"]} for i, a in enumerate(answers) if a["difference"])
    advice = msgspec.convert(advices[0], DraftAdvice, strict=False)
    plain_sum = total(slow)
    fast_sum = total(fast)
    by_position = list(zip(fast_sum.accepted_by_position, fast_sum.tried_by_position, strict=True))
    tried = sum(fast_sum.tried_by_position)
    costs = CostTable(advice.verify_s, advice.draft_s)
    expected_s = sum(costs.verify_s(n + 1) + n * advice.draft_s for n in fast_sum.lengths)
    ratios = [f.tokens_per_s / s.tokens_per_s for f, s in zip(fast, slow, strict=True)]
    return Speculation(
        draft=advice.draft,
        advice=advice,
        plain=plain_sum,
        speculative=fast_sum,
        speedup_ratio=fast_sum.tokens_per_s / plain_sum.tokens_per_s,
        median_ratio=median(ratios),
        expected_ratio=fast_sum.decoded_count * advice.verify_s[1] / expected_s,
        acceptance_ratio=sum(fast_sum.accepted_by_position) / tried if tried else 0.0,
        acceptance_by_position=tuple(a / t for a, t in by_position if t),
        ratios=tuple(ratios),
        differences=differences,
        unexplained_count=sum(not d["explained"] for d in differences),
    )


def stream(
    job: StreamJob, *, predicts: bool = True, predicted_tokens_per_s: float | None = None, how: How = How()
) -> Record:
    """Generate under a RAM budget: a record whose result is a :class:`~harness.core.result.Stream`.

    With a draft its speed is predicted from costs that are timed on the streamed model first, if it
    ``predicts``. A budget that is too small, a failure of the engine and a kill for going over the limit are
    its outcome.

    Raises:
        BadDataError: The model is no GGUF file.
        CouldNotRunError: Another measured run held the machine for too long.
    """
    path = Path(job.model).absolute()
    control_s = _control_s(job.replace(model=str(path)), how)
    how = how._replace(limits=how.limits._replace(memory_bytes=job.budget_bytes))

    def tell(advice: DraftAdvice) -> None:
        how.listener.say(f"advice: {advice.words}")

    return _measured(
        "stream",
        job.replace(model=str(path)),
        path,
        partial(_read, job, predicts, predicted_tokens_per_s, control_s),
        len(job.prompts),
        how=how,
        on_advice=tell if predicts else None,
    )


def _control_s(job: StreamJob, how: How) -> float | None:
    """Median pass of one answer with all weights in memory; None where a run cannot use it, or there is no room."""
    if job.mode != "streamed" or job.draft or expert_layout_of(Path(job.model)) is not None:
        return None
    if machine.memory().available_bytes < Path(job.model).stat().st_size + job.budget_bytes:
        return None
    how.listener.say("running one answer with all weights in memory, to compare with")
    control = job.replace(
        mode="control", prompts=job.prompts[:1], new_tokens=min(job.new_tokens, _CONTROL_TOKENS)
    )
    limits = how.limits._replace(memory_bytes=None)
    ended = run_helper("harness.measure.jobs.stream:run", control, limits=limits)
    reports: list[StreamReport] = ended.told("report", StreamReport)
    if not reports:
        how.listener.say(
            f"nothing to compare with: that answer ended early ({ended.outcome}). {ended.detail}"
        )
        return None
    return reports[0].pass_s


def _read(
    job: StreamJob,
    predicts: bool,
    predicted_tokens_per_s: float | None,
    control_s: float | None,
    ended: ChildResult,
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
    if plan and report and plan.slot_bytes and control_s:
        ratio = report.bound_ratio(plan.streamed_bytes, control_s)
    seen = next(iter(ended.told("seen", StreamReport)), None)
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
        control_s=control_s,
        seen_tokens_per_s=1 / seen.pass_s if seen and seen.pass_s else None,
        answers_tokens_per_s=tuple(a.tokens_per_s for a in answers if a.decoded_count),
        **parts,
    )
