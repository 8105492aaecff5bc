"""Where a chain of statements contradicts itself: triples with polarity, quantity and time, then a model's judgement.

A statement is a subject, what is said of it, and figures. Two contradict each other when they say the same of the same
subject with another polarity, another number of the same unit, another date or time, another place, or when orders
(``taller than``, ``left of``) run in a circle. Words of change (``now``, ``after``, ``then``) make a later statement
another one. Precision first: a pair on which the rules are silent is left alone, or asked of a model.
"""

import random
import re
from collections.abc import Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

from harness.workloads._language.judgement import Judge, precision_recall
from harness.workloads._language.statements import Clause, clauses, sentences, stem
from harness.workloads._language.texts import text_table
from harness.workloads.reasoning.frames import EXCLUSIVE, UNITS, Frame, differs, frame
from harness.workloads.reasoning.orders import CHANGE, Orders, order

_LEAD: Final = re.compile(
    r"^\W*(?:(?:so|therefore|thus|hence|since|because|as|and|we know that|we know|but|this means that)\b,?\s*)+", re.I
)
_PLACE: Final = re.compile(
    r"\b(?:is|are|(?:was|were) (?:born|buried)|lives?|stands?|sits|lies) "
    r"(?:in|at|on|under|inside|behind) (?:the )?((?:\w+ ?){1,3})",
    re.I,
)


_NAMED: Final = re.compile(
    r"^(?P<what>the .+ (?:is|was|are|were|by|called|named)) (?P<name>[A-Z]\w+(?: [A-Z]\w+)*)\W*$", re.S
)
_CASE: Final = re.compile(r"\W*(?:case|option|scenario|suppose|assume)\b", re.I)
_PAST, _PRESENT = frozenset(("had", "was", "were")), frozenset(("has", "have", "is", "are"))
_MARKED: Final = re.compile(r"[\\$#*{}|^]|\(\w+\)")
_LONG_WORDS: Final = 30
"""Sentences with marks of mathematics, or longer ones, are not read as frames and orders."""
_SOMEBODY: Final = frozenset(map(stem, ("people", "person", "someone", "somebody", "everyone", "everybody")))


class Contradiction(NamedTuple):
    """Two statements: steps, what differs (``polarity``, ``quantity`` ...), and both texts."""

    first: int
    step: int
    kind: str
    texts: tuple[str, str]


def contradictions(steps: Sequence[str]) -> list[Contradiction]:
    """Every later statement that contradicts an earlier one of another step, once for each later step, by the rules."""
    said: list[tuple[int, Clause]] = []
    orders = Orders()
    frames: list[tuple[int, str, Frame]] = []
    found = []
    for at, step in enumerate(steps):
        if "=" in step:
            continue
        if _CASE.match(step):  # what was said of another case does not hold in this one
            said.clear()
            frames.clear()
        text = _LEAD.sub("", step)
        for part in clauses(text):
            earlier = ((_differ(clause, part), first, clause) for first, clause in said if first != at)
            kind, first, other = next((clash for clash in earlier if clash[0]), ("", at, part))
            if kind:
                found.append(Contradiction(first, at, kind, (other.text.strip(), part.text.strip())))
            said.append((at, part))
        plain = [
            (sentence, clauses(sentence))
            for sentence in sentences(text)
            if not _MARKED.search(sentence) and sentence.count(" ") < _LONG_WORDS
        ]
        told = [order(part) for sentence, parts in plain for part in (*(c.text for c in parts), sentence)]
        closed = [orders.closes(one) for one in told if one]
        if any(closed):
            found.append(Contradiction(at, at, "order", (text, text)))
        now = [(at, sentence, frame(sentence, parts)) for sentence, parts in plain]
        clashes = (
            Contradiction(first, at, kind, (before, sentence))
            for _, sentence, new in now
            for first, before, old in frames
            if (kind := differs(old, new))
        )
        found += islice(clashes, 1)
        frames += now
    return list({c.step: c for c in reversed(found)}.values())[::-1]


def _differ(x: Clause, y: Clause) -> str:  # noqa: PLR0911  one for each kind
    """What makes y contradict x; empty where nothing does."""
    texts = [c.text.strip() for c in (x, y)]
    if not x.head or any(map(CHANGE.search, texts)) or "?" in texts[1] or "for" in (x.words[0], y.words[0]):
        return ""
    if _PAST & {*x.words} and _PRESENT & {*y.words} and not _PAST & {*y.words}:  # it may have changed since
        return ""
    said = [c.topics - UNITS for c in (x, y)]
    same = said[0] == said[1]
    if _nobody(x, y) or _nobody(y, x):
        return "polarity"
    if x.head != y.head and not (same and _other_quantity(x, y)):
        return ""
    names = [_NAMED.match(f"{text[:1].lower()}{text[1:]}") for text in texts]
    if names[0] and names[1] and names[0]["what"] == names[1]["what"]:
        called = [set(n["name"].split()) for n in names if n]
        return "" if called[0] <= called[1] or called[1] <= called[0] else "identity"
    if x.is_positive != y.is_positive:
        return "polarity" if _denies(x, y) else ""
    left, right = x.topics - y.topics, y.topics - x.topics
    if len(left) == len(right) == 1 and (kind := EXCLUSIVE.get(min(left))) and kind == EXCLUSIVE.get(min(right)):
        return "attribute" if all(" is " in text for text in texts) else ""
    near = (
        same
        or said[0] <= said[1]
        or (said[1] <= said[0] and len(said[1]) > 1)
        or x.topics <= y.topics
        or (y.topics <= x.topics and len(y.topics) > 1)
    )
    # A later statement that says less may give the sum of what the earlier one gives a part of.
    if near and said[0] <= said[1] and x.figures.moments == y.figures.moments and _other_quantity(x, y):
        return "quantity"
    fields = x.figures.moments.keys() & y.figures.moments.keys()
    near = near and x.stems - y.stems <= {x.head} and _numbers(x) == _numbers(y)
    if near and any(not x.figures.moments[f] & y.figures.moments[f] for f in fields):
        return "time"
    places = [_PLACE.search(text) for text in texts]
    if places[0] and places[1]:
        here, there = ([stem(w) for w in p[1].split()] for p in places if p)
        shared = x.topics - set(here) == y.topics - set(there)
        exclusive = len(here) == len(there) and here != there and here[1:] == there[1:]
        named = here[0] in x.sure_names and there[0] in y.sure_names
        subject = x.topics - set(here) - y.names - x.names <= y.topics
        if here[0] != there[0] and ((shared and exclusive) or (named and subject and not y.figures.quantities)):
            return "place"
    return ""


def _denies(x: Clause, y: Clause) -> bool:
    """Whether two clauses of other polarity say the same: of the same things, at the same time, in the same number."""
    close = x.topics <= y.topics or y.topics <= x.topics
    enough = len(x.topics & y.topics) >= 2 or "it" in (x.words[0], y.words[0])
    denied = y if x.is_positive else x
    moments = not y.figures.moments or not x.figures.moments or x.figures.moments == y.figures.moments
    return (
        close and enough and moments and (_numbers(x) == _numbers(y) or ("no" in denied.words and not _numbers(denied)))
    )


def _nobody(x: Clause, y: Clause) -> bool:
    """Whether x says that nobody does what y says that people do."""
    nobody = "nobody" in x.words[:1] or x.words[:2] == ("no", "one")
    return (
        nobody and y.is_positive and bool(x.topics) and bool(y.topics & _SOMEBODY) and x.topics == y.topics - _SOMEBODY
    )


def _numbers(c: Clause) -> list[Any]:
    return sorted((q.unit, q.value) for q in c.figures.quantities)


def _other_quantity(x: Clause, y: Clause) -> bool:
    """Whether both state one number, of things that can be compared, and the numbers differ."""
    if len(x.figures.quantities) != 1 or len(y.figures.quantities) != 1:
        return False
    a, b = x.figures.quantities[0], y.figures.quantities[0]
    return bool(a.unit) and a.unit == b.unit and a.value != b.value and a.unit != "%"


Margins = dict[tuple[int, int], float]
"""Log-odds that two steps, the earlier one first, contradict each other."""


def asked(judge: Judge, steps: Sequence[str]) -> Margins:
    """What the model says of the pairs of steps that share a word; the later of them is none that the rules find.

    ``judge`` has the instruction and the examples for contradictions.
    """
    told = [clauses(step) for step in steps]
    words = [frozenset().union(*(c.stems for c in part)) if part else frozenset() for part in told]
    known = {c.step for c in contradictions(steps)}
    every = range(len(steps))
    pairs = [(i, j) for i in every for j in every[i + 1 :] if j not in known and words[i] & words[j]]
    margins = judge.margins([f"First: {steps[i]}\nSecond: {steps[j]}" for i, j in pairs])
    return dict(zip(pairs, map(float, margins), strict=True))


def believed(steps: Sequence[str], margins: Margins, least_margin: float) -> list[Contradiction]:
    """What the rules find, and the pairs that the model calls contradictory.

    It is believed from log-odds of ``least_margin`` on: high, since precision comes first.
    """
    found = contradictions(steps)
    best: dict[int, tuple[float, int]] = {}
    for (i, j), margin in margins.items():
        best[j] = max(best.get(j, (float("-inf"), i)), (margin, i))
    more = [Contradiction(i, j, "meaning", (steps[i], steps[j])) for j, (m, i) in best.items() if m >= least_margin]
    return sorted([*found, *more], key=lambda c: c.step)


class Chain(NamedTuple):
    """A chain, the step that contradicts an earlier one (-1: none does), and the kind of its template."""

    kind: str
    steps: tuple[str, ...]
    wrong_step: int


def chains(seed: int, *, held_out: bool, fill_count: int = 1) -> list[Chain]:
    """Chains from ``harness/data/text/contradictions.toml``: half contradict themselves, half only look like it."""
    from harness.workloads.grounding_qa.facts import filled_names

    rng = random.Random(f"contradictions {seed} {held_out}")
    made = []
    for _ in range(fill_count):
        for kind, templates in text_table("contradictions").items():
            for template in templates[int(held_out) :: 2]:
                for answer in ("no", "yes"):
                    for later in template[answer]:
                        names = filled_names(rng)
                        between = rng.sample(text_table("made-up")["chains"]["between"], 2)
                        steps = [t.format_map(names) for t in (template["first"], *between, later)]
                        made.append(Chain(kind, tuple(steps), 3 if answer == "no" else -1))
    return made


def unseen() -> list[Chain]:
    """Chains by somebody who had not read the rules, half of them without a contradiction: ``chains.toml``."""
    rows = [(kind, row) for kind, told in text_table("chains").items() for row in told]
    return [Chain(kind, tuple(row["steps"]), row.get("wrong_step", -1)) for kind, row in rows]


def score(made: Sequence[Chain], found: Sequence[Sequence[Contradiction]]) -> dict[str, Any]:
    """Precision, recall by chain, whole and by kind: a contradiction counts as found when it is put at its step."""
    rows = [(c, [f.step for f in located]) for c, located in zip(made, found, strict=True)]
    hits: dict[str, list[bool]] = {}
    for chain, steps in rows:
        if chain.wrong_step >= 0:
            hits.setdefault(chain.kind, []).append(chain.wrong_step in steps)
    right, alarms = sum(map(sum, hits.values())), sum(bool(steps) for _, steps in rows)
    return {
        "chain_count": len(rows),
        **precision_recall(right, alarms, sum(map(len, hits.values()))),
        "recall_by_kind": {kind: sum(found) / len(found) for kind, found in hits.items()},
    }
