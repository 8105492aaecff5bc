"""An assistant on a device: it keeps a memory, answers from it with a citation, verifies, and abstains when unsure.

Each part can be switched off, so that what it gives can be measured.
"""

import re
from collections.abc import Sequence
from math import exp
from time import perf_counter
from typing import Any, Final, NamedTuple

from harness.ports import Session
from harness.workloads._language.generate import Branches, Plan, line_end
from harness.workloads._language.templates import ChatTemplate
from harness.workloads._language.texts import shipped_table
from harness.workloads.grounding_qa.answering import contains
from harness.workloads.grounding_qa.support import Support
from harness.workloads.memory_store.keeping import Keeper, share_by_cluster
from harness.workloads.memory_store.lives import Asked
from harness.workloads.memory_store.store import MemoryStore

PARTS: Final = ("management", "retrieval", "verification", "abstention")
_TOLD: Final = shipped_table("instructions")["assistant"]
_UNKNOWN: Final = re.compile(r"\b(?:unknown|not (?:known|mentioned|given|stated)|no note)\b", re.I)
_CITED: Final = re.compile(r"\[\s*(\d+)")
_NOTES: Final = 4
_LEAST_CONFIDENCE: Final = 0.35
"""Below it, the assistant abstains."""


class Reply(NamedTuple):
    """An answer, or none.

    Attributes:
        text: The answer; what it would have been where it is not given.
        note: The note that it cites; empty where it cites none that was shown.
        confidence: Geometric mean probability of its tokens, times the probability that the note supports it.
        is_given: False where the assistant abstains.
        read_count: Prompt tokens read, verification included.
        drawn_count: Tokens drawn.
        seconds: From question to reply.
    """

    text: str
    note: str
    confidence: float
    is_given: bool
    read_count: int
    drawn_count: int
    seconds: float


class Assistant:
    """One person's assistant.

    Args:
        session: With six sequences and 2,048 tokens; the first keeps instruction and examples, the last four verify.
        template: The model's chat template.
        store: Empty; its memory.
        support: Verifies answers, in the sequences from 2 on.
        without: Parts of :data:`PARTS` that are switched off.
        budget_tokens: Most tokens of an answer; notes are left out until a prompt has at most eight times as many.
    """

    def __init__(
        self,
        session: Session,
        template: ChatTemplate,
        store: MemoryStore,
        support: Support,
        *,
        without: Sequence[str] = (),
        budget_tokens: int = 24,
    ) -> None:
        self._session, self._support, self._without = session, support, frozenset(without)
        self._keeper, self._store = Keeper(store), store
        self._budget_tokens = budget_tokens
        self._before, self._after = template.around(session, _TOLD["instruction"], _TOLD["examples"])
        self._plan = Plan(budget_tokens, 0.0, ends=line_end(session))
        self._heard: list[str] = []
        session.truncate(0)
        session.decode(self._before, position=0, logits="none")

    def hear(self, text: str) -> str:
        """One turn of a talk; says what became of it."""
        self._heard.append(text)
        if "management" not in self._without:
            return self._keeper.tell(text).action
        self._store.store(text)
        return "stored"

    def ask(self, question: str) -> Reply:
        """Answer one question."""
        start = perf_counter()
        notes = self._notes(question)
        prompt = [*self._before, *self._prompt(question, notes), *self._after]
        branches = Branches(self._session, prompt, kept_count=len(self._before))
        drawn = branches.draw([0], self._plan)[0]
        said = self._session.detokenize(drawn.tokens).strip()
        cited = _CITED.search(said)
        number = int(cited[1]) if cited else 0
        note = notes[number - 1] if 1 <= number <= len(notes) else ""
        text = re.split(r"\[|\.\s|\.$", said, maxsplit=1)[0].strip()
        confidence = exp(drawn.log_probability / drawn.step_count)
        read = branches.read_count
        if "verification" not in self._without and text and notes:
            before = self._support.judge.read_count
            told = [note] if note else notes
            checks = self._support.check_many([(f"{question} {text}", n) for n in told])
            best = max(range(len(told)), key=lambda at: checks[at].probability)
            confidence, note = confidence * checks[best].probability, told[best]
            read += self._support.judge.read_count - before
        unsure = confidence < _LEAST_CONFIDENCE or not text or bool(_UNKNOWN.search(said))
        is_given = not unsure or "abstention" in self._without
        return Reply(text, note, confidence, is_given, read, drawn.step_count, perf_counter() - start)

    def _notes(self, question: str) -> list[str]:
        if "retrieval" in self._without:
            return self._heard[-_NOTES:]
        return [m.content for m in self._keeper.recall(question, top_k=_NOTES)][::-1]  # the best one last: it is near

    def _prompt(self, question: str, notes: list[str]) -> list[int]:
        while True:
            lines = [f"[{at}] {note}" for at, note in enumerate(notes, 1)]
            tokens = self._session.tokenize("\n".join([*lines, f"Question: {question}"]), add_special=False)
            if len(tokens) <= 8 * self._budget_tokens or not notes:
                return tokens
            del notes[0]


class Judged(NamedTuple):
    """A reply beside the question: right when it holds the value, or is not given where that was to be forgotten."""

    talk: str
    asked: Asked
    reply: Reply

    @property
    def is_right(self) -> bool:
        """Whether it is what should have been said."""
        if self.asked.kind == "gone":
            return not self.reply.is_given
        return self.reply.is_given and contains(self.reply.text, self.asked.value)


def report(judged: Sequence[Judged]) -> dict[str, Any]:
    """Shares with intervals clustered by talk, and costs.

    ``cited``: of the answers given, the note cited is there and holds what was said, word for word.
    """
    found: dict[str, Any] = {"right": share_by_cluster([(j.talk, j.is_right) for j in judged])}
    for kind in dict.fromkeys(j.asked.kind for j in judged):
        found[f"right, {kind}"] = share_by_cluster([(j.talk, j.is_right) for j in judged if j.asked.kind == kind])
    given = [j for j in judged if j.reply.is_given]
    found["wrong answers given"] = share_by_cluster([(j.talk, j.reply.is_given and not j.is_right) for j in judged])
    if given:
        found["cited"] = share_by_cluster([(j.talk, contains(j.reply.note, j.reply.text)) for j in given])
    costs = {"read_tokens": "read_count", "drawn_tokens": "drawn_count", "seconds": "seconds"}
    return found | {name: sum(getattr(j.reply, field) for j in judged) / len(judged) for name, field in costs.items()}
