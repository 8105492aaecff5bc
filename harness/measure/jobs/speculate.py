"""What the child of a speculation run does: measure the costs, look at acceptance, give advice, then run both ways."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Final

from harness.core.base import Frozen
from harness.core.drafting import Decoding, DraftAdvice
from harness.core.ports import Emit
from harness.core.scenario import Scenario
from harness.measure.jobs.timing import timed_answer
from harness.measure.sensors import EnergyMeter
from harness.runtimes.llamacpp import RUNTIME
from harness.runtimes.llamacpp.session import LlamaSession
from harness.runtimes.llamacpp.speculative import (
    CostTable,
    Drafter,
    DraftPolicy,
    LookupDrafter,
    ModelDrafter,
    check_room,
    check_same_vocabulary,
    explain_difference,
    generate,
    measure_pass_s,
)
from harness.speed.draft_cycle import WORTH_RATIO

VERIFY_SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16)
PLAIN: Final = "@ plain"
"""Mark of the samples without a draft, beside those that the run is about."""
PILOT_PROMPTS = 4
"""Acceptance differs more from text to text than within one: some tokens after each of several tell more than
many after one."""
PILOT_TOKENS: Final = 24
MOST_TOKENS: Final = 15
"""Of a draft."""


class SpeculationJob(Frozen):
    """What to run: ``new_tokens`` after each prompt.

    Attributes:
        draft: Draft model's file; ``lookup`` is the text itself.
        draft_tokens: Fixed draft length; 0 for adaptive.
    """

    target: str
    prompts: tuple[str, ...]
    draft: str = "lookup"
    scenario: Scenario = Scenario(context_tokens=1024)
    new_tokens: int = 96
    draft_tokens: int = 0
    repetitions: int = 1

    def split(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Prompts to look at acceptance with beforehand, and those of the run: others, where there are enough."""
        pilots = self.prompts[:PILOT_PROMPTS]
        if len(self.prompts) >= 2 * PILOT_PROMPTS:
            return pilots, self.prompts[PILOT_PROMPTS:]
        return pilots, self.prompts


def advise(
    policy: DraftPolicy, answers: Sequence[Sequence[tuple[int, bool]]], read_s: float = 0.0
) -> DraftAdvice:
    """What the policy makes of answers whose (bucket, agreed) pairs it has seen, or "do not".

    ``read_s`` is what the draft's reading of the prompt adds to each new token.
    """
    costs = policy.costs
    speedup = 1 / (1 / policy.replay(answers) + read_s / costs.verify_s(1))
    length = policy.draft_tokens or (policy.best()[0] if speedup >= WORTH_RATIO else 0)
    return DraftAdvice(
        draft_tokens=length,
        speedup_ratio=speedup if length else 1.0,
        acceptance_ratio=policy.acceptance_ratio(),
        ceiling_ratio=max(costs.speedup_ratio(m, 1.0) for m in range(1, policy.most_tokens + 1)),
        verify_s=costs.before_s,
        draft_s=costs.draft_s,
    )


def weighed(
    drafter: Drafter,
    verify_s: Mapping[int, float],
    answers: Sequence[tuple[Sequence[int], Sequence[int]]],
    new_tokens: int,
    *,
    most_tokens: int,
    draft_tokens: int = 0,
) -> tuple[DraftPolicy, DraftAdvice]:
    """How long drafts are to be, and advice: by the draft's own cost, and where it would have agreed with ``answers``.

    Those are a prompt each, and the target's own tokens after it, which the draft sees in one batched pass;
    its cache is empty afterwards. The reading of a prompt is shared by ``new_tokens``. Lengths are those of
    :class:`DraftPolicy`.
    """
    first = answers[0][0]
    step_s = _draft_step_s(drafter, first[:-9] or first)  # nine tokens more have room behind it
    seen = []
    began_s = time.perf_counter()
    for prompt, tokens in answers:
        drafter.forget()
        seen.append(drafter.agreement([*prompt, *tokens], len(prompt) + 1))
    read_s = 0.0
    if step_s:
        read_count = sum(len(prompt) + len(tokens) for prompt, tokens in answers)
        read_s = (time.perf_counter() - began_s) / read_count
    drafter.forget()
    policy = DraftPolicy(
        CostTable(verify_s, step_s),
        seen=[pair for answer in seen for pair in answer],
        draft_tokens=draft_tokens,
        most_tokens=most_tokens,
    )
    return policy, advise(policy, seen, read_s * fmean(len(prompt) for prompt, _ in answers) / new_tokens)


def _draft_step_s(drafter: Drafter, prompt: Sequence[int]) -> float:
    """Seconds to draft one token: the median of three looks at eight tokens each.

    A draft that takes no pass of a model costs 0. Reading the prompt does not count, nor does
    what the first look at a draft fetches from the disk.
    """
    if not drafter.lag_tokens(prompt):
        return 0.0
    times = []
    for _ in range(3):
        drafter.forget()
        drafter.propose(prompt, 1, lambda _: False)
        started_s = time.perf_counter()
        count = len(drafter.propose([*prompt, prompt[-1]], 8, lambda _: True).tokens)
        times.append((time.perf_counter() - started_s) / count)
    drafter.forget()
    return median(times)


def run(job: SpeculationJob, emit: Emit) -> None:
    """Child's entry; events: ``engine``, ``advice``, an ``answer`` and its samples for each prompt.

    Raises:
        RefusedError: The two models have different vocabularies, or the context has no room for a prompt.
        EngineError: The engine refused a model or a batch.
    """
    emit("engine", RUNTIME.identity(job.scenario))
    meter = EnergyMeter()
    target = LlamaSession(Path(job.target), job.scenario, batch_tokens=512)
    pilots, prompts = ([target.tokenize(text) for text in part] for part in job.split())
    for tokens, new in ((pilots, PILOT_TOKENS), (prompts, job.new_tokens)):
        for prompt in tokens:
            check_room(target, prompt, new)
    verify_s = measure_pass_s(target, VERIFY_SIZES)
    verify_s[1] = min(verify_s[1], median(generate(target, prompts[0], 9).duration_s / 8 for _ in range(3)))
    answers = [(prompt, generate(target, prompt, PILOT_TOKENS).tokens) for prompt in pilots]
    drafter = drafter_of(job.draft, job.scenario)
    if isinstance(drafter, ModelDrafter):
        check_same_vocabulary(target, drafter.session)
    policy, advice = weighed(
        drafter,
        verify_s,
        answers,
        job.new_tokens,
        draft_tokens=job.draft_tokens,
        most_tokens=MOST_TOKENS,
    )
    emit("advice", advice.replace(draft=Path(job.draft).name))
    for index, prompt in enumerate(prompts * job.repetitions):
        answered: dict[str, Decoding] = {}
        # In turns, so that a drifting machine favours neither.
        for mark in ("", PLAIN) if index % 2 else (PLAIN, ""):
            drafted = (None, None) if mark else (drafter, policy)
            ask = partial(generate, target, prompt, job.new_tokens, *drafted)
            answered[mark] = timed_answer(ask, emit, meter, mark=mark)
        slow, fast = answered[PLAIN], answered[""]
        difference = explain_difference(target, prompt, slow.tokens, fast.tokens, fast.widest_tokens)
        emit(
            "answer", {"plain": slow, "speculative": fast, "difference": difference and difference._asdict()}
        )


def drafter_of(name: str, scenario: Scenario, batch_tokens: int = 512, output_tokens: int = 0) -> Drafter:
    """Prompt lookup, or a draft model's file in a session of its own."""
    if name == "lookup":
        return LookupDrafter()
    return ModelDrafter(
        LlamaSession(Path(name), scenario, batch_tokens=batch_tokens, output_tokens=output_tokens)
    )
