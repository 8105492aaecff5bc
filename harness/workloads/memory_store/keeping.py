"""A memory that manages itself: what to store, what a newer text replaces, what to forget, when and how far to look.

Rules decide, in microseconds.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from harness.stats.intervals import cluster_interval
from harness.workloads._language.figures import ENGLISH
from harness.workloads._language.statements import Clause, clauses, stem
from harness.workloads.memory_store.store import Memory, MemoryStore

_RELATIONS: Final = {stem(word): name for name, words in ENGLISH["relations"].items() for word in words.split()}
_FORGET: Final = re.compile(r"^\W*(?:please,?\s+)?(?:forget|delete|erase|remove)\b(?P<what>.*)", re.I | re.S)
_OWN: Final = re.compile(r"\b(?:my|our|i am|i'm|i have|i live|i work|we live|we have)\b", re.I)


class Kept(NamedTuple):
    """What became of a text: ``stored``, ``updated``, ``forgotten`` or ``skipped``, and the memories concerned."""

    action: str
    ids: tuple[int, ...]


class Keeper:
    """Keeps a store in order."""

    def __init__(self, store: MemoryStore, namespace: str = "default") -> None:
        self._store, self._namespace = store, namespace

    def tell(self, text: str) -> Kept:
        """Hear one text: forget what it asks to forget, update what it replaces, store it if it is worth it."""
        if asked := _FORGET.match(text):
            return self._forget(asked["what"])
        if not is_worth(text):
            return Kept("skipped", ())
        vector = self._store.vector(text)
        hits = self._store.retrieve(text, top_k=4, namespace=self._namespace, vector=vector)
        older = next((h.memory for h in hits if is_replaced(h.memory.content, text)), None)
        if older is not None:
            return Kept("updated", (older.memory_id, self._store.update(older.memory_id, text, vector=vector)))
        return Kept("stored", (self._store.store(text, namespace=self._namespace, vector=vector),))

    def recall(self, question: str, *, top_k: int = 5, hop_count: int = 2) -> list[Memory]:
        """What the store knows of a question, by iterated retrieval.

        After each look, the names that the best memories bring and the question does not have are put to it, and the
        store is asked again; the memories of all looks come in turn, each once.
        """
        looks: list[list[Memory]] = []
        asked, query = {stem(w) for w in re.findall(r"\w+", question)}, question
        for _ in range(hop_count):
            found = [h.memory for h in self._store.retrieve(query, top_k=top_k, namespace=self._namespace)]
            looks.append(found)
            brought = [w for m in found[:1] for w in re.findall(r"\b[A-Z][a-z]+", m.content) if stem(w) not in asked]
            if not brought:
                break
            asked |= {stem(w) for w in brought}
            topics = " ".join(w for w in re.findall(r"\w+", question) if not w[0].isupper())
            query = f"{' '.join(dict.fromkeys(brought))} {topics}"
        order = [m for rank in range(top_k) for look in looks for m in look[rank : rank + 1]]
        return list({m.memory_id: m for m in order}.values())[:top_k]

    def _forget(self, what: str) -> Kept:
        """Forget the memories that tell all that the request names: its names, and one of its other words."""
        wanted = next(iter(clauses(what.strip(" :.!"))), None)
        if wanted is None:
            return Kept("skipped", ())
        names, topics = wanted.names, wanted.stems - wanted.names
        chosen = []
        for hit in self._store.retrieve(what, top_k=5, namespace=self._namespace):
            told = frozenset().union(*(c.stems for c in clauses(hit.memory.content)))
            if names <= told and (topics & told or not topics):
                chosen.append(hit.memory.memory_id)
        if chosen:
            self._store.forget(ids=chosen)
        return Kept("forgotten" if chosen else "skipped", tuple(chosen))


def is_worth(text: str) -> bool:
    """Whether a text is worth storing: a statement about somebody with something to say."""
    if text.rstrip().endswith("?"):
        return False
    return any(_tells(c) and (c.figures.quantities or c.figures.moments or _subject(c)) for c in clauses(text))


def is_replaced(older: str, newer: str) -> bool:
    """Whether a newer text gives another value of the same fact: by the same relation and subject."""
    for a in clauses(older):
        for b in clauses(newer):
            same = _relations(a) & _relations(b) - {"family"}
            if same and _subject(a) and _subject(a) == _subject(b) and a.stems != b.stems:
                return True
    return False


def needs_memory(question: str) -> bool:
    """Whether a question is about somebody or something told before, rather than arithmetic or common knowledge."""
    return bool(_OWN.search(question)) or any(c.sure_names or _relations(c) for c in clauses(question))


def _tells(c: Clause) -> bool:
    return len(c.stems) >= 2 and (bool(_relations(c)) or bool(c.names) or bool(_OWN.search(c.text)))


def _relations(c: Clause) -> frozenset[str]:
    return frozenset(_RELATIONS[s] for s in c.stems if s in _RELATIONS)


def _subject(c: Clause) -> str:
    """The first name of a clause that is no value of a preposition; ``i`` for the speaker; empty for neither."""
    for at, word in enumerate(c.words):
        if word in {"i", "my", "we", "our"}:
            return "i"
        if stem(word) in c.names and (at == 0 or c.words[at - 1] not in {"in", "to", "at", "from", "a", "the"}):
            return stem(word)
    return ""


def share_by_cluster(rows: Sequence[tuple[str, bool]]) -> dict[str, float | None]:
    """Share of hits with a 95 % bootstrap interval that draws whole conversations."""
    hits: dict[str, list[bool]] = {}
    for name, hit in rows:
        hits.setdefault(name, []).append(hit)
    found = cluster_interval([sum(h) for h in hits.values()], [len(h) for h in hits.values()])
    return {"share": found.mid, "low": found.low, "high": found.high, "count": len(rows)}
