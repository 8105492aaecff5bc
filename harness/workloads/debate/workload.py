"""Debate as a workload: a judge alone, a debate of four speeches, a judge after it."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any, Final, NamedTuple

from harness.domain.workload import Cost
from harness.errors import WrongAnswerError
from harness.ports import Operation, WorkloadContext
from harness.workloads._described import Described
from harness.workloads._language.templates import open_chat
from harness.workloads.debate.debating import SEQUENCES, Debate, cases, hold_all, level, report

_EVALUATED: Final = 42
_ALL: Final = 120
_OPENED: Final = (4096, SEQUENCES, 64)
"""Context, sequences and outputs of each model."""
ROUNDING_NATS: Final = 0.1
"""A pass of another length runs through other kernels, whose rounding of activations moves a log-odds: 0.03 was seen
with weights of four bits. A judge that looks at the order of the claims moves it by a whole unit or more."""
_JUDGES: Final = ("qwen2.5-coder-0.5b", "smollm2-135m")
"""Models weaker than the debaters, the strongest first; the first one that lies in the cache judges."""


class State(NamedTuple):
    """An open session, the debate on it, cases, the speeches of one debate, and the debaters' budget."""

    session: Any
    debate: Any
    cases: list[Any]
    speeches: Any
    budget_tokens: int
    context: WorkloadContext


class DebateWorkload(Described):
    """Debate, consultancy and critique before a judge who does not see the passage; timed on one model in all roles."""

    def costs(self, size: Mapping[str, int]) -> Sequence[Cost]:
        """Tokens read and drawn; ``read_tokens``, ``judge_tokens`` and ``vocab_count`` are those of Qwen2.5-Coder.

        A debate is two openings in one batch, then two rebuttals; what both sides of a batch begin with is read once.
        The judge reads both orders of the claims as one batch. What all speakers and what the judge are told first was
        read before.
        """
        fixed: dict[str, Any] = {"resident_bytes": 0, "parallel": False}
        fixed["pass_set_bytes"] = 2 * 4.0 * size["vocab_count"]
        said = 2.0 * min(30, size["budget_tokens"])
        looked = 4 * 8.0 * size["vocab_count"]  # four passes over float32
        return (
            Cost(
                operation="judge alone",
                prefill_tokens_count=2 * 65.0,
                prefill_passes_count=2.0,
                pass_bytes=looked * 4,
                **fixed,
            ),
            Cost(
                operation="debate",
                prefill_tokens_count=float(size["read_tokens"]),
                prefill_passes_count=4.0,
                decode_steps_count=said,
                decode_sequences_count=2,
                pass_bytes=2 * looked * said,
                depth_tokens=size["read_tokens"] / 2,
                **fixed,
            ),
            Cost(
                operation="judge after debate",
                prefill_tokens_count=2.0 * size["judge_tokens"],
                prefill_passes_count=2.0,
                pass_bytes=looked * 4,
                **fixed,
            ),
        )

    def context_tokens(self, size: Mapping[str, int]) -> int:
        """Context of the model's session."""
        return _OPENED[0]

    def prepare(self, size: Mapping[str, int], context: WorkloadContext) -> State:
        """Open the model, make the cases, hold one debate."""
        made = cases(size["case_count"], context.seed)
        session, template = open_chat(context, *_OPENED)
        debate = Debate(session, template, budget_tokens=size["budget_tokens"], seed=context.seed)
        return State(session, debate, made, debate.argue(made[0]), size["budget_tokens"], context)

    def operations(self, state: State) -> Sequence[Operation]:
        """One case each."""
        turn, judged = cycle(state.cases), cycle(state.cases)
        debate = state.debate
        return (
            Operation("judge alone", lambda: debate.judge(next(judged))),
            Operation("debate", lambda: debate.argue(next(turn))),
            Operation("judge after debate", lambda: debate.judge(state.cases[0], state.speeches)),
        )

    def check(self, state: State) -> Mapping[str, Any]:
        """What is true whatever the model says.

        The same seed gives the same speeches; nobody says more than the budget; a rebuttal was said after reading the
        other side's opening; what the judge reads of both sides is equally long; swapping the two claims turns the
        verdict round and changes nothing else. WrongAnswerError where one of these fails.
        """
        if [s.text for s in state.debate.argue(state.cases[0])] != [s.text for s in state.speeches]:
            raise WrongAnswerError("the same seed gave other speeches")
        *_, held = hold_all(state.debate, state.cases, state.context)
        for one in held:
            speeches = one.speeches["debate"]
            if any(s.drawn_count > state.budget_tokens for s in speeches):
                raise WrongAnswerError("a debater said more than its budget")
            if not all(
                late.read_count > early.read_count for early, late in zip(speeches[:2], speeches[2:], strict=True)
            ):
                raise WrongAnswerError("a rebuttal did not read the other side's opening")
            words = [len(text.split()) for _, text in level(speeches)]
            if min(words[:2]) and words[0] != words[1]:
                raise WrongAnswerError(f"the judge reads {words[0]} words of one side and {words[1]} of the other")
            turned = one.case._replace(true=one.case.false, false=one.case.true)
            other = state.debate.judge(turned, [s._replace(for_true=not s.for_true) for s in speeches])
            # Asked anew, without the other arms beside it: a batch decides how sums are rounded.
            mine = state.debate.judge(one.case, speeches).margin
            if abs(other.margin + mine) > ROUNDING_NATS * (1 + abs(mine)):
                raise WrongAnswerError(f"swapping the claims moved the log-odds from {mine:.4f} to {-other.margin:.4f}")
        return report(held)

    def evaluate(self, context: WorkloadContext) -> Mapping[str, Any]:
        """All arms on 42 cases (``--cases N``, ``--cases all``: 120), judged by a weaker model where the cache has one.

        Needs no data.
        """
        path = context.model_path
        assert path is not None
        session, template = open_chat(context, *_OPENED)
        weaker = [p for name in _JUDGES for p in sorted((context.cache / "models" / name).glob("*.gguf"))]
        weaker = [p for p in weaker if p.stat().st_size < 0.8 * path.stat().st_size]
        judge = open_chat(context, *_OPENED, path=weaker[0]) if weaker else None
        debate = Debate(session, template, judge, seed=context.seed)
        made = cases(_ALL if context.cases == 0 else context.cases or _EVALUATED, context.seed + 1000)
        judging = weaker[0].stem if weaker else f"{path.stem}, not weaker"
        found: dict[str, Any] = {"debaters": path.stem, "judge": judging, "of": len(made)}
        for held in hold_all(debate, made, context):
            found |= report(held)
            context.tell(found)
        session.close()
        if judge:
            judge[0].close()
        return found
