"""The memory as a system: it is told things, asked about them, and asked to forget some."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from statistics import mean
from typing import Any, Final, NamedTuple

import numpy as np

from harness.errors import RefusedError, WrongAnswerError
from harness.workloads.memory_store import datasets
from harness.workloads.memory_store.store import MemoryStore, NewMemory
from harness.workloads.parts import SystemParts
from harness.workloads.scores import share
from harness.workloads.system import (
    Answers,
    Case,
    Cases,
    Context,
    Cost,
    Costs,
    Figures,
    PartNames,
    PartPass,
    Size,
    System,
)

CONTRADICTED: Final = 0.5
"""Probability of a contradiction from which on a newer statement of the same fact replaces the older."""
_TOP: Final = 20
_ALL: Final = ""
"""The conversation of cases that name none."""
_MOST_OPEN: Final = 64
_CUTOFFS: Final = (1, 5, 10, 20)
_TEXT_TOKENS: Final = 14
"""Tokens of a built-in text or question, on average."""


class MemoryState(NamedTuple):
    """The open stores by conversation, who judges, and whether words alone are scored.

    Each conversation has a file of its own: what others said neither moves a score nor shows through it. A memory's
    source is the id of its case.
    """

    folder: Path
    stores: dict[str, MemoryStore]
    parts: SystemParts
    words_only: bool

    def store_of(self, conversation: str) -> MemoryStore:
        """Its store; the one opened first is closed where very many are open, and read again when it is asked for."""
        if conversation not in self.stores:
            assert self.parts.encoder is not None
            if len(self.stores) == _MOST_OPEN:
                self.stores.pop(next(iter(self.stores))).close()
            name = sha256(conversation.encode()).hexdigest()[:32]
            self.stores[conversation] = MemoryStore(self.folder / f"{name}.db", self.parts.encoder)
        return self.stores[conversation]


class MemorySystem(System, table="memory_store"):
    """Hybrid retrieval over everything that was told, durable writes, provable forgetting.

    A newer text replaces an older one only where the case says that both state the same fact (``subject`` and
    ``relation``) of which there is one at a time (``single``), and the NLI model, or the language model, says that they
    contradict each other. Everything else is kept: a second pet, another allergy. What was replaced stays in the
    history of the fact.
    """

    words: Mapping[str, Sequence[str]]
    """Of built-in cases: names, things and places."""

    def cases(self, size: Size, seed: int) -> Cases:
        """Where people keep things, some of them moved later; questions after all; a part of it forgotten."""
        rng = np.random.default_rng(seed)
        pairs = [(name, thing) for name in self.words["names"] for thing in self.words["things"]]
        chosen = [pairs[at] for at in rng.permutation(len(pairs))[:60]]
        told: list[Case] = []
        last: dict[tuple[str, str], str] = {}
        for at, (name, thing) in enumerate([*chosen, *chosen[:20]]):
            fact = {"subject": name, "relation": f"keeps the {thing} in", "single": True}
            text = f"{name} keeps the {thing} in the {rng.choice(self.words['places'])}."
            older = {"replaces": last[name, thing]} if (name, thing) in last else {}
            told.append({"kind": "tell", "id": f"t{at}", "text": text} | fact | older)
            last[name, thing] = f"t{at}"
        questions = [
            {"kind": "ask", "text": f"Where does {name} keep the {thing}?", "expect": [key]}
            for (name, thing), key in list(last.items())[:40]
        ]
        return [*told, *questions, *({"kind": "forget", "ids": [key]} for key in list(last.values())[40:60])]

    def read_cases(self, path: Path) -> Cases:
        """LoCoMo or LongMemEval, public data sets; RefusedError for any other file."""
        return datasets.read(path)

    def cost(self, parts: PartNames, size: Size) -> Costs:
        """Telling embeds a text and writes it; asking embeds a question and reads the whole matrix once.

        One that states a fact which is known already takes a pass of the judge more, which most do not. Forgetting
        flushes the log twice and the file once, as strace shows.
        """
        count = size["entry_count"]
        resident = 4 * 384 * count + 300 * count + (16 << 20)
        held: dict[str, Any] = {"passes": (PartPass(part="encoder", tokens=_TEXT_TOKENS),), "resident_bytes": resident}
        return {
            "tell": Cost(**held, glue_s=0.6e-3),
            "ask": Cost(**held, moved_bytes=4.0 * 384 * count, glue_s=1.0e-3 + 2e-8 * count),
            "forget": Cost(resident_bytes=resident, flush_count=3, glue_s=1.8e-3),
        }

    def prepare(self, parts: SystemParts, size: Size, context: Context) -> MemoryState:
        """A store that holds so many other memories, with vectors drawn by the seed."""
        assert parts.encoder is not None
        state = MemoryState(context.folder, {}, parts, bool(size["words_only"]))
        store = state.store_of(_ALL)
        rng = np.random.default_rng(context.seed)
        places = rng.choice(self.words["places"], size["entry_count"])
        vectors = rng.standard_normal((size["entry_count"], parts.encoder.dim), dtype=np.float32)
        store.store_many(
            NewMemory(f"Somebody left item q{at:08d}z in the {place}.", vector=vectors[at], created_s=0.0)
            for at, place in enumerate(places)
        )
        store.erase()
        return state

    def step(self, state: MemoryState, case: Case) -> Any:
        """Tell, ask or forget; RefusedError for another kind, or one that lacks its text."""
        kind, text = case["kind"], case.get("text")
        store = state.store_of(case.get("conversation", _ALL))
        if kind == "forget" and (text or "ids" in case):
            asked = [{"source": key} for key in case["ids"]] if "ids" in case else [{"words": text}]
            done = [store.forget(**one) for one in asked]
            if any(each.memories and not each.is_erased for each in done):
                raise WrongAnswerError("a forgotten memory may still lie in the log")
            return {"forgotten": [memory.source for each in done for memory in each.memories]}
        if not text:
            raise RefusedError(f"a case: found no text, expected what to {kind}")
        if kind == "ask":
            hits = store.retrieve(text, top_k=_TOP, words_only=state.words_only, now_s=case.get("time_s"))
            return {"found": [hit.memory.source for hit in hits], "texts": [hit.memory.content for hit in hits[:3]]}
        about, fields = "", {"created_s": case.get("time_s")}
        if "id" in case:
            fields["source"] = case["id"]
        if case.get("single") and {"subject", "relation"} <= case.keys():
            about = f"{case['subject']} {case['relation']}".casefold()
            for older in store.about(about)[:1] if state.parts.can_contradict else ():
                if state.parts.contradiction([(older.content, text)])[0] >= CONTRADICTED:
                    store.update(older.memory_id, text, **fields)
                    return {"replaced": [older.source]}
        store.store(text, about=about, **fields)
        return {"replaced": []}

    def score(self, cases: Cases, answers: Answers) -> Figures:
        """Evidence recall of questions, and what became of facts: kept, replaced, lost.

        ``recall_at`` k is the share of a question's evidence among the first k, averaged over questions; ``any_at`` k
        the share of questions with some evidence there. ``lost`` are facts that were replaced, though no case says so.
        """
        rows = list(zip(cases, answers, strict=True))
        figures: dict[str, Any] = {}
        asked = [(set(case["expect"]), answer["found"]) for case, answer in rows if case.get("expect")]
        if asked:
            for k in _CUTOFFS:
                figures[f"recall_at_{k}"] = mean(len(wanted & set(found[:k])) / len(wanted) for wanted, found in asked)
            some = sum(not wanted.isdisjoint(found[:5]) for wanted, found in asked)
            figures |= {"any_at_5": share(some, len(asked)), "question_count": len(asked)}
        told = [(case, answer["replaced"]) for case, answer in rows if case["kind"] == "tell"]
        if told:
            wanted = {(case.get("id"), case["replaces"]) for case, _ in told if "replaces" in case}
            done = {(case.get("id"), older) for case, replaced in told for older in replaced}
            lost = len(done - wanted)
            figures["facts_replaced"] = share(len(done & wanted), len(wanted))
            figures |= {"facts_kept": share(len(told) - lost, len(told)), "facts_lost": lost}
        forgotten = [answer["forgotten"] for case, answer in rows if case["kind"] == "forget"]
        return figures | ({"forgotten_count": sum(map(len, forgotten))} if forgotten else {})


SYSTEM = MemorySystem()
