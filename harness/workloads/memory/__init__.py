"""A memory as a system: it is told things, asked about them, and asked to forget some.

With a language model each question is also answered from what was found, and what that adds to the first
token is the time of reading it.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Any

import numpy as np

from harness.workloads.memory.note_store import OF_WORDS, Memory, MemoryStore
from harness.workloads.scores import mean_of, of_kind, resampled, share
from harness.workloads.system import Answers, Cases, Context, PartWeights, Scores, Size, System, WorkloadCase

_TOP = 20
_SHOWN = 5
"""Memories that go into a prompt."""
_ANSWER_TOKENS = 24
_ROW_BYTES = 3 * 4 * 384 + 300
"""Of a memory: its vector in the array, in SQLite's cache and in the file's log; its text and index, about."""
_BASE_BYTES = 2 << 20
_INSTRUCTION = (
    "Answer the question from these notes in a few words. Later notes count more than earlier ones."
)
_PLACES = ("cellar", "attic", "garage", "shed", "kitchen", "office", "hall", "studio", "barn")


class Turn(WorkloadCase):
    """A turn of a conversation, at ``time_s`` (Unix time), now unless given."""

    conversation: str = ""
    time_s: float | None = None


class Tell(Turn):
    """Something to remember, under an id of the user's."""

    needs = ("encoder",)
    id: str
    text: str


class Ask(Turn):
    """A question; ``expect`` are ids of what answers it, ``outdated`` those that were true before."""

    needs = ("encoder",)
    text: str
    expect: list[str] = []
    outdated: list[str] = []


class Forget(Turn):
    """What is to be forgotten: by ids, or all that holds every word of a text."""

    ids: list[str] = []
    text: str = ""


class MemorySystem(System):
    """Hybrid retrieval over everything that was told, durable writes, provable forgetting."""

    name = "memory"
    title = "Long-term memory: told, asked, and asked to forget; with a language model, answered from what was found"
    kinds = (Tell, Ask, Forget)
    options = ("language",)
    sizes = {
        "empty": {"entry_count": 0},
        "default": {"entry_count": 10000},
        "large": {"entry_count": 100000},
    }

    def cases(self, size: Size) -> Cases:
        """Where boxes are, some of them moved later; questions after all; a part of it forgotten."""
        rng = np.random.default_rng(1)
        told: list[Any] = []
        known: dict[int, list[str]] = {}
        for at, box in enumerate([*rng.permutation(60).tolist(), *range(20)]):
            text = f"Box {box} is in the {rng.choice(_PLACES)}."
            told.append(Tell(id=f"t{at}", text=text, time_s=86_400.0 * at))
            known.setdefault(box, []).insert(0, f"t{at}")
        for box, ids in sorted(known.items()):
            told.append(Ask(text=f"Where is box {box}?", expect=ids[:1], outdated=ids[1:]))
        return [*told, *(Forget(ids=[f"t{at}"]) for at in range(20))]

    def prepare(self, context: Context) -> Any:
        """The language model if any, and what opens a conversation's store.

        The first one holds so many other memories, with vectors drawn by the seed. One is open, that of the
        conversation that is going on: others neither move a score nor show through it.
        """
        parts = context.parts

        @lru_cache(maxsize=1)
        def store_of(conversation: str) -> MemoryStore:
            name = sha256(conversation.encode()).hexdigest()
            return MemoryStore(context.folder / f"{name}.db", parts.encoder, parts.meter)

        rng = np.random.default_rng(1)
        count = context.size["entry_count"]
        texts = [f"Somebody left item q{at:08d}z in the {rng.choice(_PLACES)}." for at in range(count)]
        vectors = rng.standard_normal((count, parts.encoder.dim), dtype=np.float32)
        store_of("").store(texts, [""] * count, 0.0, vectors / np.float32(vectors.shape[1] ** 0.5))
        return parts.language, store_of

    def step(self, state: Any, case: Any) -> Any:
        """Tell, ask or forget."""
        language, store_of = state
        store = store_of(case.conversation)
        if isinstance(case, Tell):
            return {"id": store.store([case.text], [case.id], case.time_s)[0]}
        if isinstance(case, Forget):
            gone = [memory.source for key in case.ids for memory in store.forget(key)]
            words = " ".join(f'"{word}"' for word in re.findall(r"\w+", case.text))
            if words:
                gone += [memory.source for memory in store.forget(words, OF_WORDS)]
            return {"forgotten": gone}
        hits = store.retrieve(case.text, top_k=_TOP)
        answer: dict[str, Any] = {
            "found": [hit.source for hit in hits],
            "newer_exists": [hit.source for hit in hits if hit.newer],
        }
        if language is not None:
            answer["text"], _ = language.write(prompt_of(case.text, hits), _ANSWER_TOKENS)
        return answer

    def held_bytes(self, size: Size, weights: PartWeights) -> int:
        """Vectors with their copies, and SQLite's cache."""
        return _BASE_BYTES + _ROW_BYTES * size["entry_count"]

    def score(self, cases: Cases, answers: Answers) -> Scores:
        """Recall of a question's evidence beside the newest memories, updates that stand behind what they replaced.

        ``recall_at_k`` is the share of a question's evidence among the first k, averaged over questions.
        """
        asked = [(case, answer["found"]) for case, answer in of_kind(cases, answers, Ask) if case.expect]
        if not asked:
            return []
        told: dict[str, list[str]] = {}
        for case, _ in of_kind(cases, answers, Tell):
            told.setdefault(case.conversation, []).insert(0, case.id)
        scores = []
        for k in (1, 10, _TOP):
            recalls = [_recall(case.expect, found[:k]) for case, found in asked]
            newest = [_recall(case.expect, told.get(case.conversation, [])[:k]) for case, _ in asked]
            scores.append(resampled(f"recall_at_{k}", recalls, "ask", {"newest first": mean_of(newest)}))
        above = []
        for case, found in asked:
            if case.outdated:
                above.append(_first(case.expect, found) < _first(case.outdated, found))
        if above:
            scores.append(share("newer_first_ratio", above, "ask", {"a coin": 0.5}))
        return scores


def prompt_of(question: str, hits: Sequence[Memory]) -> list[tuple[str, str]]:
    """The turns in which a question is answered from what was found.

    Notes stand in the order of time, without those of which a newer one is there.
    """
    shown = [hit for hit in hits[:_SHOWN] if not hit.newer]
    shown.sort(key=lambda memory: memory.created_s)
    notes = "".join(f"{memory.content}\n" for memory in shown)
    return [("system", _INSTRUCTION), ("user", f"{notes}Question: {question}")]


def _recall(expected: Sequence[str], found: Sequence[str]) -> float:
    return len(set(expected) & set(found)) / len(expected)


def _first(wanted: Sequence[str], found: Sequence[str]) -> int:
    """Place of the first of them; what was not found stands last."""
    return min(found.index(key) if key in found else len(found) for key in wanted)


SYSTEM = MemorySystem()
