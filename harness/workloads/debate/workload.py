"""Debate as a workload: a judge alone, two arguments, a judge after them."""

import re
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any, Final, NamedTuple

from harness.domain.scenario import Scenario
from harness.domain.workload import Cost
from harness.errors import WrongAnswerError
from harness.ports import Operation, WorkloadContext

_EVALUATED: Final = 120
_CONTEXT_TOKENS: Final = 768


class State(NamedTuple):
    """An open session, the debate on it, cases, one debate held in full, and the debaters' budget."""

    session: Any
    debate: Any
    cases: list[Any]
    arguments: Any
    budget_tokens: int
    seed: int


class DebateWorkload:
    """Two debaters and a judge, one small model in all roles."""

    name = "debate"
    title = "Debate: two debaters and a judge on one model, quotes checked, order swapped"
    extra = "llama"
    needs_model = True
    sizes: Mapping[str, Mapping[str, int]] = {
        "small": {"case_count": 4, "budget_tokens": 8, "read_tokens": 140, "judge_tokens": 95, "vocab_count": 49_152},
        "default": {
            "case_count": 16,
            "budget_tokens": 24,
            "read_tokens": 140,
            "judge_tokens": 95,
            "vocab_count": 49_152,
        },
    }

    def costs(self, size: Mapping[str, int]) -> Sequence[Cost]:
        """Tokens read and drawn; ``read_tokens``, ``judge_tokens`` and ``vocab_count`` are those of SmolLM2.

        A debater stops at the end of its quote, after some 16 tokens of its budget. A judgement reads its prompt twice,
        in both orders, each time with two answers of some three tokens as one batch more.
        """
        fixed: dict[str, Any] = {"flops_count": 0.0, "moved_bytes": 0.0, "resident_bytes": 0, "parallel": False}
        fixed["pass_set_bytes"] = 2 * 4.0 * size["vocab_count"]
        said = min(16, size["budget_tokens"])
        looked = 4 * 8.0 * size["vocab_count"]  # four passes over float32
        batch: dict[str, Any] = {"decode_sequences_count": 4, "depth_tokens": float(size["judge_tokens"]), **fixed}
        return (
            Cost(
                operation="judge alone",
                prefill_tokens_count=24.0,
                decode_steps_count=1.0,
                pass_bytes=looked * 6,
                decode_sequences_count=4,
                depth_tokens=24.0,
                **fixed,
            ),
            Cost(
                operation="two arguments",
                prefill_tokens_count=float(size["read_tokens"]),
                decode_steps_count=2.0 * said,
                pass_bytes=looked * 2 * said,
                depth_tokens=float(size["read_tokens"]),
                **fixed,
            ),
            Cost(
                operation="judge after debate",
                prefill_tokens_count=2.0 * size["judge_tokens"],
                prefill_passes_count=2.0,
                decode_steps_count=2.0,
                pass_bytes=looked * 12,
                **batch,
            ),
        )

    def context_tokens(self, size: Mapping[str, int]) -> int:  # noqa: ARG002  the same at every size
        """Context of the model's session."""
        return _CONTEXT_TOKENS

    def prepare(self, size: Mapping[str, int], context: WorkloadContext) -> State:
        """Open the model, make the cases, hold one debate."""
        from harness.workloads.debate.debating import Debate, cases

        made = cases(size["case_count"], context.seed)
        session = _open(context)
        debate = Debate(session, budget_tokens=size["budget_tokens"], seed=context.seed)
        return State(session, debate, made, debate.argue(made[0]), size["budget_tokens"], context.seed)

    def operations(self, state: State) -> Sequence[Operation]:
        """One case each."""
        turn, judged = cycle(state.cases), cycle(state.cases)
        debate = state.debate
        return (
            Operation("judge alone", lambda: debate.judge(next(judged))),
            Operation("two arguments", lambda: debate.argue(next(turn))),
            Operation("judge after debate", lambda: debate.judge(state.cases[0], state.arguments, with_marks=True)),
        )

    def check(self, state: State) -> Mapping[str, Any]:
        """What is true whatever the model says.

        The same seed gives the same arguments; nobody says more than the budget; swapping the debaters swaps the two
        orders of a verdict and changes nothing else; an argument called a quote stands in the passage.

        Raises:
            WrongAnswerError: One of these fails.
        """
        from harness.workloads.debate.debating import Debate, hold, report

        again = Debate(state.session, budget_tokens=state.budget_tokens, seed=state.seed).argue(state.cases[0])
        if [a.text for a in again] != [a.text for a in state.arguments]:
            raise WrongAnswerError("the same seed gave other arguments")
        held = [hold(state.debate, case) for case in state.cases]
        for one in held:
            if any(a.drawn_count > state.budget_tokens for a in one.arguments):
                raise WrongAnswerError("a debater said more than its budget")
            if any(a.is_quote and not _inside(a.text, one.case.passage) for a in one.arguments):
                raise WrongAnswerError("an argument was called a quote, and does not stand in the passage")
            swapped = one.case._replace(true=one.case.false, false=one.case.true)
            other = state.debate.judge(swapped, one.arguments[::-1])
            mine = one.verdicts["debate"]
            if abs(other.share - (1 - mine.share)) > 1e-3:
                raise WrongAnswerError(f"swapping sides moved the share from {mine.share:.4f} to {1 - other.share:.4f}")
        return report(held)

    def evaluate(self, context: WorkloadContext) -> Mapping[str, Any]:
        """Judges compared on 120 made-up cases; needs no data."""
        from harness.workloads.debate.debating import Debate, cases, hold, report

        session = _open(context)
        debate = Debate(session, seed=context.seed)
        found = report([hold(debate, case) for case in cases(_EVALUATED, context.seed + 1000)])
        session.close()
        return found


def _open(context: WorkloadContext) -> Any:
    assert context.open_session is not None and context.model_path is not None
    scenario = Scenario(context_tokens=_CONTEXT_TOKENS, thread_count=context.thread_count)
    return context.open_session(context.model_path, scenario, sequence_count=3, output_tokens=64)


def _inside(quote: str, passage: str) -> bool:
    """Whether the quote's words, articles aside, follow one another in the passage."""
    wanted, there = (
        [w for w in re.findall(r"\w+", t.lower()) if w not in {"a", "an", "the"}] for t in (quote, passage)
    )
    return any(there[at : at + len(wanted)] == wanted for at in range(len(there)))
