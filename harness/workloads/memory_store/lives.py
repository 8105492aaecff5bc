"""A second corpus, of our own making: talks with facts, updates, deletions and small talk, and questions after them.

The sentences lie in ``harness/data/text/lives.toml``, written by hand; names and values are drawn by a seed.
"""

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from harness.workloads._language.texts import text_table
from harness.workloads.memory_store.embedders import Embedder
from harness.workloads.memory_store.keeping import Keeper, needs_memory, share_by_cluster
from harness.workloads.memory_store.scoring import DEFAULT, RECENT_FIRST
from harness.workloads.memory_store.store import MemoryStore


class Asked(NamedTuple):
    """A question, the value that answers it, the value that did before, and its kind (``now hop gone``)."""

    text: str
    value: str
    stale: str
    kind: str


class Talk(NamedTuple):
    """Turns in order, with whether each is worth remembering, and questions for after the last one."""

    name: str
    turns: tuple[tuple[str, bool], ...]
    questions: tuple[Asked, ...]


def talks(count: int, seed: int) -> list[Talk]:
    """``count`` talks, each about four people in two pairs of kin."""
    return [_talk(f"talk-{n}", random.Random(f"lives {seed} {n}")) for n in range(count)]


def _talk(name: str, rng: random.Random) -> Talk:
    table = text_table("lives")
    people = rng.sample(table["people"], 4)
    kin = {people[0]: people[1], people[2]: people[3]}
    words = {a: rng.choice(table["kin"]) for a in kin}
    first = [(f"{a}'s {words[a]} is called {b}.", True) for a, b in kin.items()]
    later: list[tuple[str, bool]] = []
    questions = []
    for person in people:
        for at, fact in enumerate(rng.sample(table["fact"], 4)):
            value, newer = rng.sample(fact["values"], 2)
            first.append((fact["said"].format(A=person, v=value), True))
            stale = ""
            if at % 2:
                later.append((fact["update"].format(A=person, w=newer), True))
                value, stale = newer, value
            if at == 2:
                words_of = fact["said"].format(A=person, v="").strip(" .")
                later.append((f"Please forget that {words_of} {value}.", True))
                questions.append(Asked(fact["question"].format(A=person), value, "", "gone"))
                continue
            questions.append(Asked(fact["question"].format(A=person), value, stale, "now"))
            if person in kin.values():
                a = next(k for k, b in kin.items() if b == person)
                questions.append(Asked(fact["hop"].format(A=a, kin=words[a]), value, stale, "hop"))
    small = [(text, False) for text in rng.sample(table["small_talk"], 8)]
    rng.shuffle(first)
    rng.shuffle(later)
    turns = first + later
    for text in small:
        turns.insert(rng.randrange(len(turns) + 1), text)
    return Talk(name, tuple(turns), tuple(questions))


def evaluate(embedder: Embedder, folder: Path, *, count: int = 20, seed: int = 1) -> dict[str, Any]:
    """The managed memory beside one that stores every turn: what is first, what is stale, what should be gone.

    ``first``: the best memory holds the current value, and no other. ``stale``: it holds the value before. ``gone``:
    no file of the store and no memory retrieved holds what was to be forgotten. ``hop``: the current value is among
    the first three memories.
    """
    made, general = talks(count, seed), text_table("lives")["general"]
    rows: dict[str, list[tuple[str, bool]]] = {}
    heard: list[tuple[bool, bool]] = []
    clock = iter(range(1, 1 << 40))
    for talk in made:
        for kind in ("managed", "everything stored"):
            path = folder / f"{talk.name}-{kind.split()[0]}.db"
            with MemoryStore(path, embedder, clock=lambda: 1.7e9 + 3 * 86_400.0 * next(clock)) as store:
                keeper = Keeper(store)
                for text, is_worth in talk.turns:
                    if kind == "managed":
                        heard.append((keeper.tell(text).action != "skipped", is_worth))
                    else:
                        store.store(text)
                for asked in talk.questions:
                    for key, hit in _judged(keeper, store, asked):
                        rows.setdefault(f"{kind}{key}", []).append((talk.name, hit))
    right = sum(kept and is_worth for kept, is_worth in heard)
    told = [needs_memory(asked.text) for talk in made for asked in talk.questions]
    return {
        "talk_count": count,
        "salience": {
            "precision": right / max(1, sum(kept for kept, _ in heard)),
            "recall": right / sum(is_worth for _, is_worth in heard),
        },
        "needs_memory": {
            "recall": sum(told) / len(told),
            "false_ratio": sum(map(needs_memory, general)) / len(general),
        },
        **{key: share_by_cluster(hits) for key, hits in sorted(rows.items())},
    }


def _judged(keeper: Keeper, store: MemoryStore, asked: Asked) -> Iterator[tuple[str, bool]]:
    """What is said of one question, by name."""
    if asked.kind == "gone":
        person = next(w for w in re.findall("[A-Z][a-z]+", asked.text) if w in text_table("lives")["people"])
        found = [h.memory.content for h in store.retrieve(asked.text)]
        yield ": gone", not any(asked.value in text and person in text for text in found)
    elif asked.kind == "hop":
        one = [h.memory for h in store.retrieve(asked.text, top_k=3)]
        for look, memories in (("one look", one), ("iterated", keeper.recall(asked.text, top_k=3))):
            yield f": hop, {look}", any(asked.value in m.content for m in memories)
    else:
        for label, scoring in (("", DEFAULT), (", recent first", RECENT_FIRST)):
            best = "".join(h.memory.content for h in store.retrieve(asked.text, top_k=1, scoring=scoring))
            yield f"{label}: first", asked.value in best
            if asked.stale:
                yield f"{label}: stale", asked.stale in best
