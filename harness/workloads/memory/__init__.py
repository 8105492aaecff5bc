"""A memory as a system: it is told things, asked about them, and asked to forget some.

With a language model each question is also answered from what was found, and what that adds to the first
token is the time of reading it.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from harness.domain.model import Weights
from harness.domain.result import Score
from harness.errors import RefusedError, WrongAnswerError
from harness.workloads.memory import sets
from harness.workloads.memory.store import Hit, MemoryStore, NewMemory, WordsOnly
from harness.workloads.parts import Parts
from harness.workloads.passes import Chain, Op, Pass
from harness.workloads.scores import mean_score, rows_of, share
from harness.workloads.system import Answers, Case, Context, Size, System

_TOP: Final = 20
_MOST_OPEN: Final = 64
_CUTOFFS: Final = (1, 10)
_WIDTH: Final = 384
_ROW_BYTES: Final = 300
"""Of a memory's text and index in SQLite's cache, about."""
_BASE_BYTES: Final = 2 << 20
_SHOWN: Final = 5
"""Memories that go into a prompt."""
_ANSWER_TOKENS: Final = 24
_INSTRUCTION: Final = (
    "Answer the question from these notes in a few words. Later notes count more than earlier ones."
)
_NAMES: Final = ("Ada", "Bo", "Cleo", "Dag", "Eli", "Fay", "Gus", "Hana", "Ivo", "Jo", "Kit", "Lou")
_THINGS: Final = (
    "kayak",
    "violin",
    "lamp",
    "tent",
    "ladder",
    "camera",
    "saw",
    "kettle",
    "drill",
    "map",
    "rope",
    "helmet",
)
_PLACES: Final = (
    "cellar",
    "attic",
    "garage",
    "shed",
    "kitchen",
    "office",
    "hall",
    "studio",
    "barn",
    "workshop",
)


class Tell(Case, tag="tell"):
    """Something to remember, under an id of the user's; told at ``time_s`` (Unix time), now unless given."""

    id: str
    text: str
    conversation: str = ""
    time_s: float | None = None


class Ask(Case, tag="ask"):
    """A question; ``expect`` are ids of what answers it, ``outdated`` those that were true before."""

    text: str
    conversation: str = ""
    expect: list[str] = []
    outdated: list[str] = []
    time_s: float | None = None


class Forget(Case, tag="forget"):
    """What is to be forgotten: by ids, or by an FTS5 expression."""

    ids: list[str] = []
    text: str = ""
    conversation: str = ""
    time_s: float | None = None


class MemoryState(NamedTuple):
    """The open stores by conversation: what others said neither moves a score nor shows through it."""

    folder: Path
    stores: dict[str, MemoryStore]
    parts: Parts

    def store_of(self, conversation: str) -> MemoryStore:
        """Its store; the one opened first is closed where very many are open, and read again when it is asked for."""
        if conversation not in self.stores:
            if len(self.stores) == _MOST_OPEN:
                self.stores.pop(next(iter(self.stores))).close()
            path = self.folder / f"{sha256(conversation.encode()).hexdigest()[:32]}.db"
            embedder = self.parts.encoder or WordsOnly()
            self.stores[conversation] = MemoryStore(path, embedder, meter=self.parts.meter)
        return self.stores[conversation]


class MemorySystem(System):
    """Hybrid retrieval over everything that was told, durable writes, provable forgetting."""

    name = "memory"
    title = "Long-term memory: told, asked, and asked to forget; with a language model, answered from what was found"
    kinds = (Tell, Ask, Forget)
    parts = ("encoder",)
    options = ("language",)
    sizes = {
        "small": {"entry_count": 1000, "vectors": 1},
        "default": {"entry_count": 10000, "vectors": 1},
        "large": {"entry_count": 100000, "vectors": 1},
        "empty": {"entry_count": 0, "vectors": 1},
        "words": {"entry_count": 0, "vectors": 0},
    }

    def part_names(self, size: Size) -> Sequence[str]:
        """No encoder where words alone are compared."""
        if size["vectors"]:
            return self.parts
        return ()

    def cases(self, size: Size, seed: int) -> Sequence[Any]:
        """Where people keep things, some of them moved later; questions after all; a part of it forgotten."""
        rng = np.random.default_rng(seed)
        pairs = [(name, thing) for name in _NAMES for thing in _THINGS]
        chosen = [pairs[at] for at in rng.permutation(len(pairs))[:60]]
        told: list[Any] = []
        last: dict[tuple[str, str], str] = {}
        older: dict[tuple[str, str], list[str]] = {}
        for at, (name, thing) in enumerate([*chosen, *chosen[:20]]):
            text = f"{name} keeps the {thing} in the {rng.choice(_PLACES)}."
            told.append(Tell(id=f"t{at}", text=text, time_s=86_400.0 * at))
            if (name, thing) in last:
                older[name, thing] = [last[name, thing]]
            last[name, thing] = f"t{at}"
        asked = [
            Ask(
                text=f"Where does {name} keep the {thing}?",
                expect=[key],
                outdated=older.get((name, thing), []),
            )
            for (name, thing), key in list(last.items())[:40]
        ]
        return [*told, *asked, *(Forget(ids=[key]) for key in list(last.values())[40:60])]

    def read_cases(self, path: Path) -> Sequence[Any]:
        """LoCoMo, a public data set; RefusedError for any other file."""
        return [
            Tell(id=row.pop("id"), **row) if "id" in row else Ask(**row)  # only what is told has an id
            for row in sets.read(path)
        ]

    def prepare(self, parts: Parts, size: Size, context: Context) -> MemoryState:
        """A store that holds so many other memories, with vectors drawn by the seed."""
        state = MemoryState(context.folder, {}, parts)
        store = state.store_of("")
        rng = np.random.default_rng(context.seed)
        places = rng.choice(_PLACES, size["entry_count"])
        if parts.encoder:
            dim = parts.encoder.dim
        else:
            dim = 0
        vectors = rng.standard_normal((size["entry_count"], dim), dtype=np.float32)
        store.store_many(
            NewMemory(f"Somebody left item q{at:08d}z in the {place}.", vector=vectors[at], created_s=0.0)
            for at, place in enumerate(places)
        )
        store.erase()
        return state

    def step(self, state: MemoryState, case: Any) -> Any:
        """Tell, ask or forget."""
        store = state.store_of(case.conversation)
        if isinstance(case, Tell):
            return {"id": store.store(case.text, source=case.id, created_s=case.time_s)}
        if isinstance(case, Forget):
            return {"forgotten": forget(store, case)}
        hits = store.retrieve(case.text, top_k=_TOP)
        answer: dict[str, Any] = {
            "found": [hit.memory.source for hit in hits],
            "texts": [hit.memory.content for hit in hits[:3]],
            "newer_exists": [hit.memory.source for hit in hits if hit.newer],
        }
        if state.parts.language is not None:
            written = state.parts.language.write(prompt_of(case.text, notes_of(hits)), _ANSWER_TOKENS)
            answer["text"] = written.text
        return answer

    def chain(self, case: Any, size: Size, chain: Chain) -> None:
        """A text is embedded; a question too, and all vectors are compared with it."""
        if isinstance(case, Forget) or not size["vectors"]:
            return
        chain.embed(case.text)
        if isinstance(case, Ask):
            moved_bytes = 4 * _WIDTH * max(size["entry_count"], 1)
            chain.passes.append(Pass(part="store", op=Op.SEARCH, moved_bytes=moved_bytes))

    def held_bytes(self, size: Size, weights: Mapping[str, Weights]) -> int:
        """Vectors with room for half as many, and copies while they are told; SQLite's cache."""
        row_bytes = 4 * _WIDTH * size["vectors"] * 6 + _ROW_BYTES
        return _BASE_BYTES + row_bytes * size["entry_count"]

    def score(self, cases: Sequence[Any], answers: Answers) -> Sequence[Score]:
        """Recall of a question's evidence beside the newest memories.

        Updates that stand behind what they replaced.

        ``recall_at_k`` is the share of a question's evidence among the first k, averaged over questions.
        """
        asked = [(case, answer["found"]) for case, answer in rows_of(cases, answers, Ask) if case.expect]
        told: dict[str, list[str]] = {}
        for case in cases:
            if isinstance(case, Tell):
                told.setdefault(case.conversation, []).insert(0, case.id)
        scores = []
        for k in _CUTOFFS if asked else ():
            recalls = [_recall(case.expect, found[:k]) for case, found in asked]
            newest = [_recall(case.expect, told.get(case.conversation, [])[:k]) for case, _ in asked]
            nulls = {"newest first": float(np.mean(newest))}
            scores.append(mean_score(f"recall_at_{k}", recalls, "ask", nulls))
        updated = [(case, found) for case, found in asked if case.outdated]
        if updated:
            above = [_is_above(case.expect, case.outdated, found) for case, found in updated]
            scores.append(share("newer_first_ratio", above, "ask", {"a coin": 0.5}))
        missed = sum(len(set(case.expect) - set(found)) for case, found in asked)
        told_of: dict[str, Any] = {"group": "ask", "count": len(asked), "more_is_better": False}
        scores.append(Score(name="not_in_first_20_count", value=float(missed), **told_of))
        return scores


def notes_of(hits: Sequence[Hit]) -> list[str]:
    """What was found as notes in the order of time, those left out of which a newer one is there."""
    shown = [hit.memory for hit in hits[:_SHOWN] if not hit.newer]
    return [memory.content for memory in sorted(shown, key=lambda memory: memory.created_s)]


def prompt_of(question: str, notes: Sequence[str]) -> list[tuple[str, str]]:
    """The turns in which a question is answered from notes."""
    return [("system", _INSTRUCTION), ("user", "\n".join([*notes, f"Question: {question}"]))]


def forget(store: MemoryStore, case: Forget) -> list[str]:
    """Sources of what was forgotten; WrongAnswerError where any of it may still lie in a file."""
    if not case.ids and not case.text:
        raise RefusedError("forget: found neither ids nor a text, expected one of them")
    wanted: list[Mapping[str, Any]] = [{"source": key} for key in case.ids] or [{"words": case.text}]
    done = [store.forget(**one) for one in wanted]
    if any(each.memories and not each.is_erased for each in done):
        raise WrongAnswerError("a forgotten memory may still lie in the log")
    return [memory.source for each in done for memory in each.memories]


def _recall(expected: Sequence[str], found: Sequence[str]) -> float:
    return len(set(expected) & set(found)) / len(expected)


def _is_above(newer: Sequence[str], older: Sequence[str], found: Sequence[str]) -> bool:
    """Whether the first of the newer ones stands before every older one; what was not found stands last."""
    ranks = {key: at for at, key in enumerate(found)}
    last = len(found)
    return min(ranks.get(key, last) for key in newer) < min(ranks.get(key, last) for key in older)


SYSTEM = MemorySystem()
