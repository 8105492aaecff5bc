"""What the child of a streaming run does: one model under a budget, streamed or mapped, with or without a draft."""

from functools import partial
from pathlib import Path
from typing import Any, Literal

from harness.core.base import Frozen
from harness.core.errors import RefusedError
from harness.core.ports import Emit
from harness.core.scenario import Scenario
from harness.measure import page_cache
from harness.measure.jobs.speculate import drafter_of, weighed
from harness.measure.jobs.timing import timed_answer
from harness.measure.sensors import EnergyMeter
from harness.onnx.files import model_files
from harness.runtimes.llamacpp import RUNTIME
from harness.runtimes.llamacpp.block_streaming import StreamedSession
from harness.runtimes.llamacpp.expert_streaming import ExpertStreamedSession, open_streamed
from harness.runtimes.llamacpp.session import LlamaSession
from harness.runtimes.llamacpp.speculative import (
    Drafter,
    ModelDrafter,
    check_room,
    check_same_vocabulary,
    generate,
    measure_pass_s,
    total,
)

Mode = Literal["streamed", "mapped", "control"]
_DRAFT_TOKENS = 15
"""Most drafted tokens of a cycle. Passes of the draft are no longer than this and the token before: room for
the logits of more would be taken from the target's weights."""
_PILOT_TOKENS = 16
_SEEN_TOKENS = 10
"""After which it is said anew what the run will give."""
_MOST_CACHED_RATIO = 0.02
"""Of a mapped file that other programs may keep in the page cache: it would be read from there."""


class StreamJob(Frozen):
    """What to run, in ``budget_bytes`` in all, and passes of at most ``batch_tokens``.

    Attributes:
        mode: Streamed by this harness, left to the system's page cache, or with all weights in memory and called back
            as if they were streamed.
        draft: Draft model in memory; empty for none, ``lookup`` for the text itself.
    """

    model: str
    prompts: tuple[str, ...]
    budget_bytes: int
    mode: Mode = "streamed"
    draft: str = ""
    new_tokens: int = 24
    scenario: Scenario = Scenario(context_tokens=512)
    batch_tokens: int = 32


def run(job: StreamJob, emit: Emit) -> None:
    """Child's entry.

    Events: ``engine``, ``schedule``, ``plan`` or ``expert_plan``, ``advice`` on a draft, ``seen`` (a report of the
    first tokens), a sample and an ``answer`` for each prompt, ``report``, ``expert_use``.

    Raises:
        RefusedError: The budget or the context is too small, or the vocabularies differ.
        EngineError: The engine failed.
    """
    path = Path(job.model)
    emit("engine", RUNTIME.identity(job.scenario))
    meter = EnergyMeter()

    def answer(prompt: list[int], session: LlamaSession, *drafted: Any) -> int:
        ask = partial(generate, session, prompt, job.new_tokens, *drafted)
        told = timed_answer(ask, emit, meter, disk_expected=True)
        emit("answer", told)
        return told.cycle_count

    page_cache.drop(*model_files(path))  # pages that others left in the cache would be free for this run
    if job.mode == "mapped":
        if (cached := page_cache.cached_ratio(*model_files(path)) or 0.0) > _MOST_CACHED_RATIO:
            raise RefusedError(
                f"{cached:.0%} of {path.name} lies in memory beyond this run's limit: another program has it "
                "open, or its file system is in memory"
            )
        scenario = job.scenario.replace(mmap=True, repack=False, ubatch_tokens=job.batch_tokens)
        session = LlamaSession(path, scenario, batch_tokens=job.batch_tokens, output_tokens=16)
        for prompt in _prompts(job, session):
            answer(prompt, session)
        return
    if job.mode == "control":
        with StreamedSession(path, job.scenario, None, batch_tokens=job.batch_tokens) as control:
            for prompt in _prompts(job, control.session):
                control.end_answer(answer(prompt, control.session))
            emit("report", control.report())
        return
    drafter = _drafter(job)
    streamed, reason = open_streamed(path, job.scenario, job.budget_bytes, batch_tokens=job.batch_tokens)
    with streamed:
        streamed.put_readers_first()
        emit("schedule", {"name": streamed.name, "reason": reason})
        emit("expert_plan" if streamed.name == "experts" else "plan", streamed.plan)
        session = streamed.session
        prompts = _prompts(job, session)
        if isinstance(drafter, ModelDrafter):
            check_same_vocabulary(session, drafter.session)
        policy = None
        if drafter:
            # costs of the streamed model; fewer tokens where the experts of a pass have little room
            most = min(_DRAFT_TOKENS + 1, session.batch_tokens)
            sizes = sorted({size for size in (1, 4, 8) if size <= most} | {most})
            verify_s = measure_pass_s(session, sizes, depth_tokens=0, count=2)
            pilots = [generate(session, prompt, min(_PILOT_TOKENS, job.new_tokens)) for prompt in prompts[:2]]
            answers = [(prompt, pilot.tokens) for prompt, pilot in zip(prompts[:2], pilots, strict=True)]
            pace_ratio = 1 / (
                total(pilots).tokens_per_s * verify_s[1]
            )  # what was timed is the best of two passes
            verify_s = {size: pace_ratio * duration_s for size, duration_s in verify_s.items()}
            policy, advice = weighed(drafter, verify_s, answers, job.new_tokens, most_tokens=most - 1)
            emit("advice", advice)
        else:
            streamed.end_answer(
                generate(session, prompts[0], min(_SEEN_TOKENS + 1, job.new_tokens)).cycle_count
            )
            emit("seen", streamed.report())
        streamed.reset()
        for prompt in prompts:
            streamed.end_answer(answer(prompt, session, drafter, policy))
            streamed.probe_again()
        emit("report", streamed.report())
        if isinstance(streamed, ExpertStreamedSession):
            emit("expert_use", streamed.use())


def _prompts(job: StreamJob, session: LlamaSession) -> list[list[int]]:
    """Token ids of each; RefusedError where the context has no room for one and its new tokens."""
    prompts = [session.tokenize(text) for text in job.prompts]
    for prompt in prompts:
        check_room(session, prompt, job.new_tokens)
    return prompts


def _drafter(job: StreamJob) -> Drafter | None:
    """The draft, loaded first, so that what it takes is known when the split is planned.

    It is read into memory, so that none of it can be evicted.
    """
    if not job.draft:
        return None
    scenario = Scenario(
        context_tokens=job.scenario.context_tokens,
        thread_count=job.scenario.thread_count,
        ubatch_tokens=_DRAFT_TOKENS + 1,
        mmap=False,
    )
    drafter = drafter_of(job.draft, scenario, batch_tokens=_DRAFT_TOKENS + 1, output_tokens=8)
    if isinstance(drafter, ModelDrafter):
        drafter.session.decode([0] * (_DRAFT_TOKENS + 1), position=0)  # touch its buffers
        drafter.session.clear()
        page_cache.drop(*model_files(Path(job.draft)))
    return drafter
