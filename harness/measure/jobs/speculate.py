"""What the child of a speculation run does: measure the costs, look at acceptance, give advice, then run both ways."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Final

from harness.domain.base import Frozen
from harness.domain.drafting import Decoding, DraftAdvice
from harness.domain.scenario import Scenario
from harness.measure.jobs.timed import TimedAnswers
from harness.ports import Emit
from harness.predict.speculative import WORTH_RATIO
from harness.runtimes.llamacpp import RUNTIME
from harness.runtimes.llamacpp.draft_policy import CostTable, DraftPolicy
from harness.runtimes.llamacpp.drafters import Drafter, LookupDrafter, ModelDrafter
from harness.runtimes.llamacpp.session import LlamaSession
from harness.runtimes.llamacpp.speculative import (
    check_room,
    check_same_vocabulary,
    explain_difference,
    generate,
    measure_pass_s,
)

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
        drafts: Draft models to choose from before the run, by what each would give; ``lookup`` is the text
            itself.
        draft_tokens: Fixed draft length; 0 for adaptive.
    """

    target: str
    prompts: tuple[str, ...]
    drafts: tuple[str, ...] = ("lookup",)
    scenario: Scenario = Scenario(context_tokens=1024)
    new_tokens: int = 96
    draft_tokens: int = 0
    repetitions: int = 1

    def split(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Prompts to look at acceptance with beforehand, and those of the run: others, where there are enough."""
        if len(self.prompts) >= 2 * PILOT_PROMPTS:
            spare = PILOT_PROMPTS
        else:
            spare = 0
        return self.prompts[: spare or PILOT_PROMPTS], self.prompts[spare:]


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
    **lengths: int,
) -> tuple[DraftPolicy, DraftAdvice]:
    """How long drafts are to be, and advice: by the draft's own cost, and where it would have agreed with ``answers``.

    Those are a prompt each, and the target's own tokens after it, which the draft sees in one batched pass;
    its cache is empty afterwards. The reading of a prompt is shared by ``new_tokens``. ``lengths`` are those
    of :class:`DraftPolicy`.
    """
    first = answers[0][0]
    costs = CostTable(
        verify_s, _draft_step_s(drafter, first[:-9] or first)
    )  # nine tokens more have room behind it
    seen = []
    began_s = time.perf_counter()
    for prompt, tokens in answers:
        drafter.forget()
        seen.append(drafter.agreement([*prompt, *tokens], len(prompt) + 1))
    duration_s = time.perf_counter() - began_s
    drafter.forget()
    if costs.draft_s:
        read_s = duration_s / sum(len(prompt) + len(tokens) for prompt, tokens in answers)
    else:
        read_s = 0.0
    policy = DraftPolicy(costs, seen=[pair for answer in seen for pair in answer], **lengths)
    return policy, advise(policy, seen, read_s * fmean(len(prompt) for prompt, _ in answers) / new_tokens)


def _draft_step_s(drafter: Drafter, prompt: Sequence[int]) -> float:
    """Seconds to draft one token: median of three looks at eight tokens each.

    0 where it takes no pass of a model.

    Reading the prompt does not count, nor does what the first look at a draft fetches from the disk.
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
    timed = TimedAnswers(emit)
    target = LlamaSession(Path(job.target), job.scenario, batch_tokens=512)
    pilots, prompts = ([target.tokenize(text) for text in part] for part in job.split())
    for tokens, new in ((pilots, PILOT_TOKENS), (prompts, job.new_tokens)):
        for prompt in tokens:
            check_room(target, prompt, new)
    verify_s = measure_pass_s(target, VERIFY_SIZES)
    verify_s[1] = min(verify_s[1], median(generate(target, prompts[0], 9).duration_s / 8 for _ in range(3)))
    answers = [(prompt, generate(target, prompt, PILOT_TOKENS).tokens) for prompt in pilots]
    advice, chosen, policy = _choose(job, target, answers, verify_s)
    emit("advice", advice)
    drafted = (_drafter(chosen, job, target), policy)
    for index, prompt in enumerate(prompts * job.repetitions):
        answered: dict[str, Decoding] = {}
        # In turns, so that a drifting machine favours neither.
        for mark in ("", PLAIN) if index % 2 else (PLAIN, ""):
            ask = partial(generate, target, prompt, job.new_tokens, *(() if mark else drafted))
            answered[mark] = timed.answer(ask, mark)
        slow = answered[PLAIN]
        fast = answered[""]
        difference = explain_difference(target, prompt, slow.tokens, fast.tokens, fast.widest_tokens)
        emit(
            "answer", {"plain": slow, "speculative": fast, "difference": difference and difference._asdict()}
        )


def _drafter(name: str, job: SpeculationJob, target: LlamaSession) -> Drafter:
    if name == "lookup":
        return LookupDrafter()
    session = LlamaSession(Path(name), job.scenario, batch_tokens=512)
    check_same_vocabulary(target, session)
    return ModelDrafter(session)


def _choose(
    job: SpeculationJob,
    target: LlamaSession,
    answers: list[tuple[list[int], tuple[int, ...]]],
    verify_s: dict[int, float],
) -> tuple[DraftAdvice, str, DraftPolicy]:
    """Which of the job's drafts would give most: advice, its name, and how long its drafts are to be."""
    candidates = []
    for name in job.drafts:
        drafter = _drafter(name, job, target)
        lengths = {"draft_tokens": job.draft_tokens, "most_tokens": MOST_TOKENS}
        policy, advice = weighed(drafter, verify_s, answers, job.new_tokens, **lengths)
        candidates.append((advice, policy, name))
        if isinstance(drafter, ModelDrafter):
            drafter.session.close()
    advice, policy, chosen = max(candidates, key=lambda c: (c[0].speedup_ratio, c[0].ceiling_ratio))
    others = {Path(name).name: a.speedup_ratio for a, _, name in candidates if name != chosen}
    return advice.replace(draft=Path(chosen).name, others=others), chosen, policy
