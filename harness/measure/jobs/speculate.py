"""What the child of a speculation run does: measure the costs, look at acceptance, give advice, then run both ways."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from harness.domain.base import Frozen
from harness.domain.drafting import Decoding, DraftAdvice
from harness.domain.scenario import Scenario
from harness.errors import RefusedError
from harness.measure.jobs.timed import Timed, draft_step_s
from harness.predict.speculative import WORTH_RATIO
from harness.runtimes.llamacpp import RUNTIME
from harness.runtimes.llamacpp.draft_policy import AdaptivePolicy, CostTable, FixedPolicy
from harness.runtimes.llamacpp.drafters import Drafter, LookupDrafter, ModelDrafter, Sampling
from harness.runtimes.llamacpp.session import LlamaSession
from harness.runtimes.llamacpp.speculative import (
    Speculator,
    check_same_vocabulary,
    explain_difference,
    measure_pass_s,
    plain,
)

T = TypeVar("T")
VERIFY_SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16)
PLAIN: Final = "@ plain"
"""Mark of the samples without a draft, beside those that the run is about."""
PILOT_PROMPTS = 4
"""Acceptance differs more from text to text than within one: some tokens after each of several tell more than many
after one."""


class SpeculationJob(Frozen, frozen=True, kw_only=True):
    """What to run: ``new_tokens`` after each prompt.

    Attributes:
        drafts: Draft models to choose from before the run, by what each would give; ``lookup`` is the text itself.
        draft_tokens: Fixed draft length; 0 for adaptive, of at most ``most_tokens``.
        draft_scenario: For the draft, such as another api or placement; None: the target's.
        pilot_tokens: Tokens after each prompt of the pilot, which estimates acceptance on prompts of its own: those
            are not in the run, except where there are too few of them.
    """

    target: str
    prompts: tuple[str, ...]
    drafts: tuple[str, ...] = ("lookup",)
    scenario: Scenario = Scenario(context_tokens=1024)
    new_tokens: int = 96
    draft_tokens: int = 0
    repetitions: int = 1
    most_tokens: int = 15
    temperature: float = 0.0
    seed: int = 0
    pilot_tokens: int = 24
    draft_scenario: Scenario | None = None

    def split(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Prompts to look at acceptance with beforehand, and those of the run: others, where there are enough."""
        spare = PILOT_PROMPTS if len(self.prompts) >= 2 * PILOT_PROMPTS else 0
        return self.prompts[: spare or PILOT_PROMPTS], self.prompts[spare:]


def advise(seen: list[tuple[int, bool]], verify_s: dict[int, float], draft_s: float, most_tokens: int) -> DraftAdvice:
    """The best fixed draft length for what was seen of acceptance, or "do not"."""
    acceptance = (sum(agreed for _, agreed in seen) + 1.0) / (len(seen) + 2.0)
    lengths, costs = range(1, most_tokens + 1), CostTable(verify_s, draft_s)
    best = max(lengths, key=lambda m: costs.speedup_ratio(m, acceptance))
    gain = costs.speedup_ratio(best, acceptance)
    pays = gain >= WORTH_RATIO
    return DraftAdvice(
        draft_tokens=best if pays else 0,
        speedup_ratio=gain if pays else 1.0,
        acceptance_ratio=acceptance,
        ceiling_ratio=max(costs.speedup_ratio(m, 1.0) for m in lengths),
        verify_s=verify_s,
        draft_s=draft_s,
    )


def run(arguments: dict[str, Any], emit: Callable[..., None]) -> None:
    """Child's entry; events: ``engine``, ``advice``, an ``answer`` and its samples for each prompt.

    Raises:
        RefusedError: The two models have different vocabularies.
        EngineError: The engine refused a model or a batch.
    """
    job = msgspec.convert(arguments, SpeculationJob)
    emit("engine", RUNTIME.identity(job.scenario))
    timed = Timed(emit)
    sampling = Sampling(job.temperature, seed=job.seed)
    target = LlamaSession(Path(job.target), job.scenario, batch_tokens=512)
    pilots, prompts = ([target.tokenize(text) for text in part] for part in job.split())
    verify_s = measure_pass_s(target, VERIFY_SIZES)
    steps_s = [plain(target, prompts[0], 9).duration_s / 8 for _ in range(3)]
    verify_s[1] = min(verify_s[1], statistics.median(steps_s))
    answers = [(prompt, plain(target, prompt, job.pilot_tokens).tokens) for prompt in pilots]
    make = partial(_drafter, job=job, target=target, sampling=sampling)
    advice, chosen, policy = choose(job, make, answers, verify_s)
    drafter = make(chosen)
    emit("advice", advice)
    speculator = Speculator(target, drafter, policy, sampling)
    for prompt, marks in turns(job, prompts):
        told: dict[str, Decoding] = {}
        for mark in marks:
            ask = partial(plain, target) if mark else speculator.generate
            told[mark] = timed.answer(partial(ask, prompt, job.new_tokens), mark)
        slow, fast, difference = told[PLAIN], told[""], None
        if job.temperature == 0:
            difference = explain_difference(target, prompt, slow.tokens, fast.tokens, fast.widest_tokens)
        emit("answer", {"plain": slow, "speculative": fast, "difference": difference and difference._asdict()})


def _drafter(name: str, job: SpeculationJob, target: LlamaSession, sampling: Sampling) -> Drafter:
    if name == "lookup":
        return LookupDrafter()
    session = LlamaSession(Path(name), job.draft_scenario or job.scenario, batch_tokens=512)
    try:
        check_same_vocabulary(target, session)
    except RefusedError:
        session.close()
        raise
    return ModelDrafter(session, sampling)


def choose(
    job: SpeculationJob,
    make: Callable[[str], Drafter],
    answers: Sequence[tuple[list[int], Sequence[int]]],
    verify_s: dict[int, float],
    adaptive: type[AdaptivePolicy] = AdaptivePolicy,
) -> tuple[DraftAdvice, str, FixedPolicy]:
    """Which of the job's drafts would give most: advice, its name, and how long its drafts are to be.

    Each is judged by its own cost, and by where it would have agreed with ``answers`` (prompt, tokens): the target's
    own, seen by the draft in one batched pass each.
    """
    candidates = []
    for name in job.drafts:
        drafter = make(name)
        draft_s = draft_step_s(drafter, answers[0][0]) if isinstance(drafter, ModelDrafter) else 0.0
        seen: list[tuple[int, bool]] = []
        for prompt, tokens in answers:
            drafter.forget()
            seen += drafter.agreement([*prompt, *tokens], len(prompt) + 1)
        candidates.append((advise(seen, verify_s, draft_s, job.most_tokens), seen, name))
        if isinstance(drafter, ModelDrafter):
            drafter.session.close()
    advice, seen, chosen = max(candidates, key=lambda c: (c[0].speedup_ratio, c[0].ceiling_ratio))
    others = {Path(name).name: a.speedup_ratio for a, _, name in candidates if name != chosen}
    costs = CostTable(verify_s, advice.draft_s)
    policy = FixedPolicy(job.draft_tokens, costs)
    if not job.draft_tokens:
        policy = adaptive(costs, most_tokens=job.most_tokens, seen=seen)
    return msgspec.structs.replace(advice, draft=Path(chosen).name, others=others), chosen, policy


def turns(job: SpeculationJob, prompts: Sequence[T]) -> Iterator[tuple[T, tuple[str, str]]]:
    """Each prompt of the run, and which side goes first: in turns, so that a drifting machine favours neither."""
    for index, prompt in enumerate([*prompts] * job.repetitions):
        yield prompt, ("", PLAIN) if index % 2 else (PLAIN, "")
