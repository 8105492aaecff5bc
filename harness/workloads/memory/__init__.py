"""A memory as a system: it is told things, asked about them, and asked to forget some.

With a language model each question is also answered from what was found, and what that adds to the first
token is the time of reading it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from hashlib import sha256
from typing import Any

import numpy as np

from harness.core.errors import optional
from harness.workloads.chain import Op, RecordedPass, read, written
from harness.workloads.memory.note_store import OF_WORDS, Memory, MemoryStore
from harness.workloads.scores import mean_of, of_kind, resampled, share
from harness.workloads.system import Answers, Cases, Context, PartWeights, Scores, Size, System, WorkloadCase

_TOP = 20
_SHOWN = 5
"""Memories that go into a prompt."""
_ANSWER_TOKENS = 24
_VECTOR_BYTES = 4 * 384
_ROW_BYTES = 3 * _VECTOR_BYTES + 300
"""Of a memory: its vector in the array, in SQLite's cache and in the file's log; its text and index, about."""
_BASE_BYTES = 2 << 20
_INSTRUCTION = (
    "Answer the question from these notes in a few words. Of two notes on the same fact the later one holds."
)
NEWEST = "newest first"
PAIR = "newest of the two nearest"
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
    """A question, with the ids of the notes that answer it.

    Attributes:
        expect: Ids of the notes that answer it.
        outdated: Ids of notes that answered it before a fact changed.
        forged: Ids of notes that nobody should believe.
    """

    needs = ("encoder",)
    text: str
    expect: list[str] = []
    outdated: list[str] = []
    forged: list[str] = []


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

    def passes(self, size: Size) -> Mapping[str, Sequence[Sequence[RecordedPass]]]:
        """A question is embedded, its vector compared with all others, and answered from five notes."""
        embed = RecordedPass(part="encoder", op=Op.EMBED, tokens=12)
        search = RecordedPass(
            part="store", op=Op.SEARCH, moved_bytes=_VECTOR_BYTES * max(1, size["entry_count"])
        )
        answered = (embed, search, read(120), written(_ANSWER_TOKENS // 2, 120))
        return {"tell": [(embed,)], "ask": [(embed, search)], "ask and answer": [answered]}

    def cases(self, size: Size) -> Cases:
        """Notes of where boxes are, some moved later; questions about all of them; a part to be forgotten."""
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
        return parts.language, store_of, parts.encoder

    def step(self, state: Any, case: Any) -> Any:
        """Tell, ask or forget."""
        language, store_of, _ = state
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

    def nulls(self, state: Any, case: Any) -> Mapping[str, Any]:
        """What BM25, the nearest vectors, and the newer of the two nearest before the others would find."""
        if not isinstance(case, Ask):
            return {}
        notes, vectors = state[1](case.conversation).all()
        if not notes:
            return {}
        return simpler(case.text, notes, vectors @ state[2].embed([case.text])[0])

    def held_bytes(self, size: Size, weights: PartWeights) -> int:
        """Vectors with their copies, and SQLite's cache."""
        return _BASE_BYTES + _ROW_BYTES * size["entry_count"]

    def score(self, cases: Cases, answers: Answers) -> Scores:
        """Recall of a question's evidence, and what changed before what was true before, beside simpler means.

        ``recall_at_k`` is the share of a question's evidence among the first k, averaged over questions.
        """
        told: dict[str, list[str]] = {}
        for case, _ in of_kind(cases, answers, Tell):
            told.setdefault(case.conversation, []).insert(0, case.id)
        asked = [
            (
                case,
                answer["found"],
                {NEWEST: told.get(case.conversation, []), **answer.get("nulls", {})},
            )
            for case, answer in of_kind(cases, answers, Ask)
            if case.expect
        ]
        scores = []
        for k in (1, 5, 10, _TOP) if asked else ():
            recalls = [_recall(case.expect, found[:k]) for case, found, _ in asked]
            scores.append(
                resampled(f"recall_at_{k}", recalls, "ask", _of_all(asked, partial(_recalled, k=k)))
            )
        for name, column, is_good in (("newer_first", "outdated", True), ("forged_first", "forged", False)):
            rows = [row for row in asked if getattr(row[0], column)]
            before = partial(_before, column=column, is_good=is_good)
            if rows:
                hits = [before(case, found) for case, found, _ in rows]
                one = share(f"{name}_ratio", hits, "ask", _of_all(rows, before))
                scores.append(one.replace(more_is_better=is_good))
        valid = [
            (case, answer)
            for case, answer in of_kind(cases, answers, Ask)
            if case.expect and not case.outdated
        ]
        if valid:
            called = [bool({*case.expect} & {*answer["newer_exists"]}) for case, answer in valid]
            seconds = [answer.get("nulls", {}).get(PAIR, ())[1:2] for _, answer in valid]
            nulls = {
                PAIR: mean_of(
                    [bool({*case.expect} & {*one}) for (case, _), one in zip(valid, seconds, strict=True)]
                )
            }
            scores.append(
                share("valid_called_outdated_ratio", called, "ask", nulls).replace(more_is_better=False)
            )
        return scores


def simpler(question: str, notes: Sequence[Memory], cosines: Any) -> dict[str, list[str]]:
    """Sources of notes as simpler means order them, from notes in the order of time and their cosines [notes]."""
    with optional("bm25s", "llama"):
        import bm25s
        import Stemmer
    stemmer = Stemmer.Stemmer("english")
    words = [
        bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False)
        for texts in ([note.content for note in notes], [question])
    ]
    index = bm25s.BM25()
    index.index(words[0], show_progress=False)
    ranked = index.retrieve(words[1], k=min(_TOP, len(notes)), show_progress=False)[0][0].tolist()
    nearest = np.argsort(-cosines, kind="stable")[:_TOP].tolist()
    orders = {
        "BM25": ranked,
        "cosine": nearest,
        PAIR: [*sorted(nearest[:2], reverse=True), *nearest[2:]],
    }
    return {name: [notes[at].source for at in order] for name, order in orders.items()}


def prompt_of(question: str, hits: Sequence[Memory]) -> list[tuple[str, str]]:
    """The turns in which a question is answered from what was found.

    Notes stand in the order of time; none is left out, since two facts may both hold.
    """
    shown = sorted(hits[:_SHOWN], key=lambda memory: memory.created_s)
    notes = "".join(f"{memory.content}\n" for memory in shown)
    return [("system", _INSTRUCTION), ("user", f"{notes}Question: {question}")]


def _recall(expected: Sequence[str], found: Sequence[str]) -> float:
    return len(set(expected) & set(found)) / len(expected)


def _recalled(case: Ask, found: Sequence[str], k: int) -> float:
    return _recall(case.expect, found[:k])


def _before(case: Ask, found: Sequence[str], column: str, is_good: bool) -> bool:
    """Whether what is expected stands before the ids of a column; of bad ones, whether they stand before it."""
    right, other = _first(case.expect, found), _first(getattr(case, column), found)
    return right < other if is_good else other < right


def _of_all(rows: Sequence[Any], of: Callable[[Ask, Sequence[str]], float]) -> dict[str, float]:
    """Mean of a figure of what each of the simpler means found."""
    names = dict.fromkeys(name for _, _, simple in rows for name in simple)
    if getattr(of, "func", of) is not _recalled:  # the newest stands before all, whatever is asked
        names.pop(NEWEST, None)
    return {name: mean_of([of(case, simple.get(name, ())) for case, _, simple in rows]) for name in names}


def _first(wanted: Sequence[str], found: Sequence[str]) -> int:
    """Place of the first of them; what was not found stands last."""
    return min(found.index(key) if key in found else len(found) for key in wanted)


SYSTEM = MemorySystem()
