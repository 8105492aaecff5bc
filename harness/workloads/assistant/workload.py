"""The assistant as a workload: one turn heard, one question answered; each part switched off in turn."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any, Final, NamedTuple

from harness.domain.workload import NATIVE_OPS, Cost
from harness.errors import WrongAnswerError
from harness.ports import Operation, WorkloadContext
from harness.workloads._described import Described
from harness.workloads._language.cases import drawn, watched
from harness.workloads._language.templates import open_chat
from harness.workloads.assistant.assistant import Assistant, Judged, report
from harness.workloads.grounding_qa.answering import fill_store
from harness.workloads.grounding_qa.support import Support
from harness.workloads.memory_store.lives import talks

_EVALUATED: Final = 6
_ASKED: Final = 10


class State(NamedTuple):
    """An open session, the assistant, its talk, and the store."""

    session: Any
    assistant: Any
    talk: Any
    store: Any
    budget_tokens: int


class AssistantWorkload(Described):
    """Memory, retrieval, a cited answer, verification, abstention."""

    def costs(self, size: Mapping[str, int]) -> Sequence[Cost]:
        """Hearing is one retrieval and one write of the memory; asking two retrievals, one answer, one verification.

        ``read_tokens`` (notes and question), ``verify_tokens`` and ``vocab_count`` are those of Qwen2.5-Coder; an
        answer takes some seven tokens. A text that is heard goes once through an encoder of 10.6 million weights where
        ``minilm`` is 1, a question twice. Few rows are multiplied at a time: the weights are copied into the order of
        the product's kernel for them, read and written.
        """
        encoder = 10.6e6 * size["minilm"]
        drawn = min(7.0, size["budget_tokens"])
        fixed: dict[str, Any] = {"parallel": False, "product_dim": 12 * size["minilm"]}
        fixed |= {"resident_bytes": 1 << 20, "file_bytes": round(8.6 * encoder)}
        return (
            Cost(
                operation="hear",
                flops_count=2 * 10 * encoder,
                pass_bytes=8 * encoder,
                pass_set_bytes=8 * encoder,
                python_ops_count=9000 + NATIVE_OPS * 900,
                sql_statements_count=30 + 2.9 * 20 + 1.3 * 12,  # statements, terms of the index, pages of the log
                numpy_calls_count=120 + 260 * size["minilm"],
                **fixed,
            ),
            Cost(
                operation="ask",
                flops_count=2 * 2 * 12 * encoder,
                python_ops_count=16000 + NATIVE_OPS * 1500,
                sql_statements_count=22,
                numpy_calls_count=150 + 520 * size["minilm"],
                prefill_tokens_count=float(size["read_tokens"] + size["verify_tokens"]),
                prefill_passes_count=2.0,
                decode_steps_count=drawn,
                depth_tokens=250.0,
                pass_bytes=4 * 8.0 * size["vocab_count"] * (drawn + 1),
                pass_set_bytes=2 * 4.0 * size["vocab_count"],
                **fixed,
            ),
        )

    def context_tokens(self, size: Mapping[str, int]) -> int:
        """Context of the model's session."""
        return 2048

    def prepare(self, size: Mapping[str, int], context: WorkloadContext) -> State:
        """Open the model, hear a talk."""
        talk = talks(1, context.seed)[0]
        opened = open_chat(context, context_tokens=2048, sequence_count=6)
        assistant, store = self._assistant(opened, context, "timed", size)
        for text, _ in talk.turns:
            assistant.hear(text)
        return State(opened[0], assistant, talk, store, size["budget_tokens"])

    def operations(self, state: State) -> Sequence[Operation]:
        """Hear one turn again; answer one question."""
        turns, questions = cycle(t for t, _ in state.talk.turns), cycle(q.text for q in state.talk.questions)
        return (
            Operation("hear", lambda: state.assistant.hear(next(turns))),
            Operation("ask", lambda: state.assistant.ask(next(questions))),
        )

    def check(self, state: State) -> Mapping[str, Any]:
        """What is true whatever the model says.

        The same question gets the same reply; no answer passes the budget; a note cited is a current memory; what was
        to be forgotten stands in no memory. WrongAnswerError where one of these fails.
        """
        for text, _ in state.talk.turns:  # in order again: timing may have ended in the middle of the talk
            state.assistant.hear(text)
        kept = {h.memory.content for h in state.store.retrieve("", top_k=len(state.store))}
        judged = []
        for asked in state.talk.questions:
            reply = state.assistant.ask(asked.text)
            if state.assistant.ask(asked.text)[:4] != reply[:4]:
                raise WrongAnswerError(f"{asked.text!r} got another reply the second time")
            if reply.drawn_count > state.budget_tokens:
                raise WrongAnswerError(f"an answer of {reply.drawn_count} tokens, {state.budget_tokens} allowed")
            if reply.note and reply.note not in kept:
                raise WrongAnswerError(f"the note {reply.note!r} is in no memory")
            judged.append(Judged(state.talk.name, asked, reply))
        return report(judged)

    def evaluate(self, context: WorkloadContext) -> Mapping[str, Any]:
        """Ten questions (``--cases``) on each of six talks, with all parts and without each in turn; needs no data."""
        opened = open_chat(context, context_tokens=4096, sequence_count=16)
        judged: dict[str, list[Judged]] = {}
        made = talks(_EVALUATED, context.seed + 100)
        arms = [(talk, off) for talk in made for off in ("", "management", "retrieval")]
        for talk, off in watched(arms, context, "talks, each three times"):
            name = f"{talk.name}-{off or 'whole'}"
            assistant, store = self._assistant(opened, context, name, self.sizes["default"], *off.split(), together=8)
            for text, _ in talk.turns:
                assistant.hear(text)
            questions = drawn(talk.questions, context, _ASKED, by=lambda q: q.kind)
            drafts = assistant.drafts([asked.text for asked in questions])
            verified = assistant.verified(drafts)
            store.close()
            # Verification and abstention come after the answer: without them, the same answers are judged otherwise.
            told = {f"without {off}" if off else "all parts": verified}
            if not off:
                told |= {"without verification": drafts}
                told |= {"without abstention": [reply._replace(abstains=False) for reply in verified]}
            for arm, replies in told.items():
                rows = zip(questions, replies, strict=True)
                judged.setdefault(arm, []).extend(Judged(talk.name, asked, reply) for asked, reply in rows)
            found = {arm: report(rows) for arm, rows in judged.items()}
            context.tell(found)
        opened[0].close()
        return found

    def _assistant(
        self,
        opened: tuple[Any, Any],
        context: WorkloadContext,
        name: str,
        size: Mapping[str, int],
        *without: str,
        together: int = 1,
    ) -> tuple[Any, Any]:
        session, template = opened
        store = fill_store(context, [], name, with_meaning=bool(size["minilm"]), capacity=10_000)
        session.clear()
        support = Support(session, template, home=together + 1, together=6 if together > 1 else 3)
        how: dict[str, Any] = {"without": without, "together": together, "budget_tokens": size["budget_tokens"]}
        return Assistant(session, template, store, support, **how), store
