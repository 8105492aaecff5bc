"""Does retrieval find the evidence? Recall on LoCoMo, a public set that is pointed at and never shipped.

LoCoMo (Maharana et al. 2024, CC BY-NC 4.0): long conversations, and questions with the turns that answer them. What
is measured is retrieval alone: the share of a question's evidence turns among the first k, averaged over questions.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from harness.errors import BadDataError
from harness.workloads.memory_store.embedders import Embedder
from harness.workloads.memory_store.index import Filter
from harness.workloads.memory_store.scoring import DEFAULT, LEXICAL, SEED, SEMANTIC, Scoring
from harness.workloads.memory_store.store import MemoryStore, NewMemory

CUTOFFS: Final = (1, 5, 10, 20)
SCORINGS: Final[Mapping[str, Scoring]] = {
    "cosine": SEMANTIC,
    "bm25": LEXICAL,
    "fused": DEFAULT,
    "seed formula, access frozen": SEED,
}


class Question(NamedTuple):
    """A question, the conversation it belongs to, and the identifiers of the turns that answer it."""

    text: str
    conversation: str
    evidence: tuple[str, ...]


class Conversations(NamedTuple):
    """Turns (conversation, identifier, text, time) and questions with at least one evidence turn that exists."""

    turns: tuple[tuple[str, str, str, float], ...]
    questions: tuple[Question, ...]


def read(path: Path) -> Conversations:
    """Read a LoCoMo file.

    Raises:
        BadDataError: It is not one.
    """
    try:
        samples = json.loads(path.read_text(encoding="utf-8"))
        turns = tuple(turn for sample in samples for turn in _turns(sample))
        known = {(conversation, name) for conversation, name, _, _ in turns}
        questions = []
        for sample in samples:
            for entry in sample["qa"]:
                names = re.findall(r"D\d+:\d+", " ".join(entry.get("evidence", [])))
                found = tuple(dict.fromkeys(n for n in names if (sample["sample_id"], n) in known))
                if found:
                    questions.append(Question(entry["question"], sample["sample_id"], found))
    except (ValueError, KeyError, TypeError) as error:
        raise BadDataError(path, "", repr(error), "a LoCoMo file") from error
    return Conversations(turns, tuple(questions))


def _turns(sample: Mapping[str, Any]) -> Iterator[tuple[str, str, str, float]]:
    talk = sample["conversation"]
    for key, turns in talk.items():
        if not re.fullmatch(r"session_\d+", key):
            continue
        when = datetime.strptime(talk[f"{key}_date_time"], "%I:%M %p on %d %B, %Y").replace(tzinfo=UTC).timestamp()
        for at, turn in enumerate(turns):
            yield sample["sample_id"], turn["dia_id"], f"{turn['speaker']}: {turn['text']}", when + at


def evaluate(data: Conversations, embedder: Embedder, path: Path) -> dict[str, Any]:
    """Recall of evidence for each way to score, each conversation a namespace of one store.

    Every question is asked one day after the last turn of its conversation. The seed's formula is also run as its
    class runs it, where each retrieval raises the access counts that the next one is scored with.
    """
    asked = embedder.embed([q.text for q in data.questions])
    last = {c: max(t for n, _, _, t in data.turns if n == c) for c in {t[0] for t in data.turns}}
    recalls: dict[str, dict[str, float]] = {}
    with MemoryStore(path, embedder, capacity=len(data.turns)) as store:
        ids = store.store_many(NewMemory(text, c, name, 0.5, when) for c, name, text, when in data.turns)
        turn_of = {i: turn[1] for i, turn in zip(ids, data.turns, strict=True)}
        runs: list[tuple[str, Scoring, bool]] = [(name, scoring, False) for name, scoring in SCORINGS.items()]
        runs.append(("seed formula as written", SEED, True))
        for name, scoring, touch in runs:
            found = []
            for question, vector in zip(data.questions, asked, strict=True):
                now_s = last[question.conversation] + 86_400.0
                only = Filter(namespace=question.conversation)
                kept: dict[str, Any] = {"only": only, "scoring": scoring, "vector": vector, "now_s": now_s}
                hits = store.retrieve(question.text, top_k=max(CUTOFFS), **kept)
                if touch:  # the class counts the five it returns
                    store.retrieve(question.text, top_k=5, touch=True, **kept)
                found.append([turn_of[h.memory.memory_id] for h in hits])
            recalls[name] = recall(found, data.questions)
    return {
        "turn_count": len(data.turns),
        "question_count": len(data.questions),
        "embedder": embedder.name,
        "evidence_recall": recalls,
    }


def recall(found: Sequence[Sequence[str]], questions: Sequence[Question]) -> dict[str, float]:
    """Mean share of each question's evidence among the first k found, for each k."""
    shares = {
        f"at_{k}": [len(set(f[:k]) & set(q.evidence)) / len(q.evidence) for f, q in zip(found, questions, strict=True)]
        for k in CUTOFFS
    }
    return {name: float(np.mean(values)) for name, values in shares.items()}
