"""An assistant on a device: it keeps a memory, answers from it with a citation, verifies, and abstains when unsure.

Each part can be switched off, so that what it gives can be measured.
"""

import re
from collections.abc import Sequence
from math import exp
from time import perf_counter
from typing import Any, Final, NamedTuple

from harness.ports import Session
from harness.workloads._language.generate import Plan, answers, line_end
from harness.workloads._language.templates import ChatTemplate
from harness.workloads._language.texts import text_table
from harness.workloads.grounding_qa.answering import contains
from harness.workloads.grounding_qa.support import Support
from harness.workloads.memory_store.keeping import Keeper, share_by_cluster
from harness.workloads.memory_store.lives import Asked
from harness.workloads.memory_store.store import MemoryStore

_TOLD: Final = text_table("instructions")["assistant"]
_UNKNOWN: Final = re.compile(r"\b(?:unknown|not (?:known|mentioned|given|stated)|no note)\b", re.I)
_CITED: Final = re.compile(r"\[\s*(\d+)")
_NAME: Final = r"[A-Z]\w+(?: [A-Z]\w+)*"
_KIN: Final = rf"{_NAME}'s \w+"
_IS: Final = re.compile(
    rf"(?P<who>{_KIN}) (?:is|was)(?: called| named)? (?P<called>{_NAME})\.?"
    rf"|(?P<name>{_NAME}) (?:is|was) (?P<whose>{_KIN})\.?"
)
_NOTES: Final = 4
_LEAST_CONFIDENCE: Final = 0.35
"""Below it, the assistant abstains."""


class Reply(NamedTuple):
    """An answer, and what is to be known before it is given.

    Attributes:
        text: The answer; what it would have been where it is not given.
        cited: The note that it cites; empty where it cites none that was shown.
        sure: Geometric mean probability of its tokens.
        says_unknown: Whether it says that it does not know.
        notes: What it is verified against: the note cited and those that hold its words, else all that were shown.
        asked: The question as the model read it (:func:`_of_whom`).
        chances: How likely each of the notes supports it; none where nobody verifies.
        read_count: Prompt tokens read, verification included.
        drawn_count: Tokens drawn.
        seconds: From question to reply; its share of a batch's.
        abstains: Whether it may be held back.
    """

    text: str
    cited: str
    sure: float
    says_unknown: bool
    notes: tuple[str, ...]
    asked: str
    chances: tuple[float, ...]
    read_count: int
    drawn_count: int
    seconds: float
    abstains: bool = True

    @property
    def confidence(self) -> float:
        """Probability of its tokens, times the probability that a note supports it."""
        return self.sure * max(self.chances, default=1.0)

    @property
    def note(self) -> str:
        """The note that supports it best; without verification the one it cites."""
        return max(zip(self.chances, self.notes, strict=False))[1] if self.chances else self.cited

    @property
    def is_given(self) -> bool:
        """False where the assistant abstains."""
        unsure = self.confidence < _LEAST_CONFIDENCE or not self.text or self.says_unknown
        return not (unsure and self.abstains)


class Assistant:
    """One person's assistant.

    Args:
        session: Sequence 0 keeps instruction and examples, as many as ``together`` answer, those of ``support`` verify.
        template: The model's chat template.
        store: Empty; its memory.
        support: Verifies answers, in sequences of its own.
        without: Parts that are switched off, of ``management retrieval verification abstention``.
        together: Questions in one batch.
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
        together: int = 1,
        budget_tokens: int = 24,
    ) -> None:
        self._session, self._support, self._without = session, support, frozenset(without)
        self._keeper, self._store = Keeper(store), store
        self._budget_tokens, self._together = budget_tokens, together
        before, self._after = template.around(session, _TOLD["instruction"], _TOLD["examples"])
        self._kept_count = len(before)
        self._plan = Plan(budget_tokens, 0.0, ends=line_end(session))
        self._heard: list[str] = []
        session.truncate(0)
        session.decode(before, position=0, logits="none")

    def hear(self, text: str) -> str:
        """One turn of a talk; says what became of it."""
        self._heard.append(text)
        if "management" not in self._without:
            return self._keeper.tell(text).action
        self._store.store(text)
        return "stored"

    def ask(self, question: str) -> Reply:
        """Answer one question."""
        drafts = self.drafts([question])
        made = drafts if "verification" in self._without else self.verified(drafts)
        return made[0]._replace(abstains="abstention" not in self._without)

    def drafts(self, questions: Sequence[str]) -> list[Reply]:
        """Answers that nobody has verified, several in one batch."""
        made: list[Reply] = []
        for at in range(0, len(questions), self._together):
            start = perf_counter()
            looked = [self._look(question) for question in questions[at : at + self._together]]
            prompts = [self._prompt(asked, notes) + self._after for asked, notes in looked]
            drawn = answers(self._session, self._kept_count, prompts, [0] * len(prompts), self._plan)
            seconds = (perf_counter() - start) / len(prompts)
            for (asked, notes), prompt, sample in zip(looked, prompts, drawn, strict=True):
                said = self._session.detokenize(sample.tokens).strip()
                number = _CITED.search(said)
                cited = notes[int(number[1]) - 1] if number and 1 <= int(number[1]) <= len(notes) else ""
                text = re.split(r"\[|\.\s|\.$", said, maxsplit=1)[0].strip()
                holding = [note for note in notes if text and contains(note, text)]
                made.append(
                    Reply(
                        text=text,
                        cited=cited,
                        sure=exp(sample.log_probability / sample.step_count),
                        says_unknown=bool(_UNKNOWN.search(said)),
                        notes=tuple(dict.fromkeys([cited, *holding]) if cited else notes),
                        asked=asked,
                        chances=(),
                        read_count=len(prompt),
                        drawn_count=sample.step_count,
                        seconds=seconds,
                    )
                )
        return made

    def verified(self, drafts: Sequence[Reply]) -> list[Reply]:
        """The answers with how likely their notes support them, by the model's own judgement and exact checks."""
        start, before = perf_counter(), self._support.judge.read_count
        pairs = [(f"{d.asked} {d.text}", text) for d in drafts if d.text for text in d.notes]
        chances = iter([s.probability for s in self._support.check_many(pairs)])
        each = 1 / max(1, len(pairs))
        read, seconds = (self._support.judge.read_count - before) * each, (perf_counter() - start) * each
        return [
            d._replace(
                chances=(found := tuple(next(chances) for _ in d.notes if d.text)),
                read_count=d.read_count + round(read * len(found)),
                seconds=d.seconds + seconds * len(found),
            )
            for d in drafts
        ]

    def _look(self, question: str) -> tuple[str, list[str]]:
        """The question as it is asked, and the notes shown with it: looked for anew where it is asked of a name."""
        notes = self._notes(question)
        asked = _of_whom(question, notes)
        return asked, notes if asked == question else self._notes(asked)

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


def _of_whom(question: str, notes: Sequence[str]) -> str:
    """The question asked of whom a note names, where it describes somebody whom the note describes alike.

    With ``Eva's uncle is called Tom`` a question of Eva's uncle is one of Tom: a small model that is to take both steps
    at once answers of Eva, or cites a note about her.
    """
    for match in filter(None, map(_IS.fullmatch, notes)):
        who, name = match["who"] or match["whose"], match["called"] or match["name"]
        if who in question and name not in question:
            return question.replace(who, name)
    return question


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
