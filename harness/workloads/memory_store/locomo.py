"""Does retrieval find the evidence? Recall on LoCoMo, a public set that is pointed at and never shipped.

LoCoMo (Maharana et al. 2024, CC BY-NC 4.0): long conversations, and questions with the turns that answer them. What
is measured is retrieval alone: the share of a question's evidence turns among the first k, averaged over questions.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from harness.errors import BadDataError
from harness.workloads.memory_store.embedders import Embedder
from harness.workloads.memory_store.scoring import DEFAULT, LEXICAL, SEED, SEMANTIC, Scoring
from harness.workloads.memory_store.store import MemoryStore, NewMemory

_UNANSWERABLE: Final = 5
_AS_WRITTEN: Final = "seed formula as written"
CUTOFFS: Final = (1, 5, 10, 20)
SCORINGS: Final[Mapping[str, Scoring]] = {
    "cosine": SEMANTIC,
    "bm25": LEXICAL,
    "fused": DEFAULT,
    "seed formula, access frozen": SEED,
}


class Turn(NamedTuple):
    """What somebody said in a conversation, its identifier there, and when."""

    conversation: str
    name: str
    text: str
    at_s: float


class Question(NamedTuple):
    """A question, the conversation it belongs to, and the identifiers of the turns that answer it; maybe none exists.

    ``answer`` is empty where the conversation does not tell it (category 5).
    """

    text: str
    conversation: str
    evidence: tuple[str, ...]
    answer: str


def read(path: Path) -> tuple[tuple[Turn, ...], tuple[Question, ...]]:
    """All turns and all questions of a LoCoMo file, in its order; BadDataError where it is not one."""
    try:
        samples = json.loads(path.read_text(encoding="utf-8"))
        turns = tuple(turn for sample in samples for turn in _turns(sample))
        known = {turn[:2] for turn in turns}
        questions = tuple(_question(sample["sample_id"], row, known) for sample in samples for row in sample["qa"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadDataError(path, "", repr(error), "a LoCoMo file") from error
    return turns, questions


def _question(conversation: str, row: Mapping[str, Any], known: Set[tuple[str, str]]) -> Question:
    names = re.findall(r"D\d+:\d+", " ".join(row.get("evidence", [])))
    evidence = tuple(dict.fromkeys(n for n in names if (conversation, n) in known))
    answer = "" if row["category"] == _UNANSWERABLE else str(row.get("answer", ""))
    return Question(row["question"], conversation, evidence, answer)


def _turns(sample: Mapping[str, Any]) -> Iterator[Turn]:
    talk = sample["conversation"]
    for key, turns in talk.items():
        if not re.fullmatch(r"session_\d+", key):
            continue
        when = datetime.strptime(talk[f"{key}_date_time"], "%I:%M %p on %d %B, %Y").replace(tzinfo=UTC).timestamp()
        for at, turn in enumerate(turns):
            yield Turn(sample["sample_id"], turn["dia_id"], f"{turn['speaker']}: {turn['text']}", when + at)


def evaluate(turns: Sequence[Turn], every: Sequence[Question], embedder: Embedder, path: Path) -> dict[str, Any]:
    """Recall of evidence (mean share among the first k found) for each way to score; a conversation is a namespace.

    Every question is asked one day after the last turn of its conversation. The seed's formula is also run as its
    class runs it, where each retrieval raises the access counts that the next one is scored with.
    """
    questions = [q for q in every if q.evidence]
    asked = embedder.embed([q.text for q in questions])
    last = {turn.conversation: turn.at_s for turn in sorted(turns, key=lambda t: t.at_s)}
    recalls: dict[str, dict[str, float]] = {}
    with MemoryStore(path, embedder, capacity=len(turns)) as store:
        ids = store.store_many(NewMemory(t.text, t.conversation, t.name, 0.5, t.at_s) for t in turns)
        turn_of = {i: turn.name for i, turn in zip(ids, turns, strict=True)}
        for name, scoring in (*SCORINGS.items(), (_AS_WRITTEN, SEED)):
            shares: dict[str, list[float]] = {f"at_{k}": [] for k in CUTOFFS}
            for question, vector in zip(questions, asked, strict=True):
                now_s = last[question.conversation] + 86_400.0
                kept: dict[str, Any] = {"scoring": scoring, "namespace": question.conversation}
                kept |= {"vector": vector, "now_s": now_s}
                hits = store.retrieve(question.text, top_k=max(CUTOFFS), **kept)
                if name == _AS_WRITTEN:  # the class counts the five it returns
                    store.retrieve(question.text, top_k=5, touch=True, **kept)
                names = [turn_of[h.memory.memory_id] for h in hits]
                for k in CUTOFFS:
                    share = len(set(names[:k]) & set(question.evidence)) / len(question.evidence)
                    shares[f"at_{k}"].append(share)
            recalls[name] = {cutoff: float(np.mean(values)) for cutoff, values in shares.items()}
    return {
        "turn_count": len(turns),
        "question_count": len(questions),
        "embedder": embedder.name,
        "evidence_recall": recalls,
    }
