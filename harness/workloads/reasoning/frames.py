"""Two sentences that put another value into one frame: ``the bus has 16 seats``, ``with its 12 seats the bus``.

A *frame* is what a sentence names; its *slots* hold values of which a thing has one: a number of one unit, a date, a
colour, a numbered place, a name. Two sentences contradict each other where they name two things alike, no word makes
another thing of one of them, and just one slot differs. Where two slots differ they tell of two things. Word order,
voice and clauses do not matter, so that what is said again in other words is seen, which clauses side by side are not.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from harness.workloads._language.figures import ENGLISH, UNIT_WORDS, figures
from harness.workloads._language.statements import Clause, first_verb, stem

_WORDS: Final = {kind: frozenset(words.split()) for kind, words in ENGLISH["frames"].items()}
_PAST: Final = re.compile(ENGLISH["frames"]["past"], re.I)
_WAS, _IS = frozenset(("had", "was", "were", "did")), frozenset(("has", "have", "is", "are", "does", "do"))
_CAPITAL: Final = re.compile(r"(?<=[\w,;'’] )[A-Z]\w+")
EXCLUSIVE: Final = {stem(word): kind for kind, words in ENGLISH["exclusive"].items() for word in words.split()}
_ENDING: Final = re.compile(rf"(?<=\w{{4}})(?:{'|'.join(ENGLISH['frames']['endings'].split())})$")
_LABEL: Final = re.compile(
    rf"\b(?P<what>{'|'.join(ENGLISH['frames']['numbered'].split())}) (?P<which>\d{{1,3}})(?![\d,.]*\d|\w)", re.I
)
_NTH: Final = re.compile(
    rf"\b(?P<which>{'|'.join(ENGLISH['numbers']['ordinals'].split())}) (?P<what>{'|'.join(_WORDS['numbered'])})\b", re.I
)
UNITS: Final = frozenset(map(stem, UNIT_WORDS))
_ENOUGH: Final = 2


class Frame(NamedTuple):
    """One sentence.

    Attributes:
        named: Roots of the words that say something, values left out.
        slots: What a value is of, and the values.
        names: Roots of words in capitals.
        words: All words, in small letters.
        denied: What each clause that denies names; empty where none does.
        values: All numbers that stand there.
        subject: What stands before the first verb, names left out.
        spelt: All words in order, as they are spelt.
    """

    named: frozenset[str]
    slots: Mapping[tuple[str, str], frozenset[object]]
    names: frozenset[str]
    words: frozenset[str]
    denied: tuple[frozenset[str], ...]
    values: frozenset[object]
    subject: frozenset[str]
    spelt: tuple[str, ...]


def frame(text: str, parts: Sequence[Clause]) -> Frame:
    """What a sentence of these clauses names, and the values that it puts there."""
    stems = frozenset().union(*(c.topics for c in parts)) if parts else frozenset()
    told = figures(text)
    slots: dict[tuple[str, str], set[object]] = {}
    for q in told.quantities:
        if q.unit and q.unit != "%":
            slots.setdefault(("quantity", q.unit), set()).add(q.value)
    for field, values in told.moments.items():
        slots[("time", field)] = set(values)
    for s in stems & EXCLUSIVE.keys():
        slots.setdefault(("attribute", EXCLUSIVE[s]), set()).add(s)
    ordinals = list(_NTH.finditer(text))
    for m in (*_LABEL.finditer(text), *ordinals):
        slots.setdefault(("place", stem(m["what"])), set()).add(m["which"].lower())
    names = frozenset().union(*(c.names for c in parts)) if parts else frozenset()
    names |= {stem(w) for w in _CAPITAL.findall(text)}
    words = frozenset(w for c in parts for w in c.words) - {m["which"].lower() for m in ordinals}
    return Frame(
        _said(stems),
        {key: frozenset(values) for key, values in slots.items()},
        frozenset(map(_root, names)),
        words | {"now"} if _PAST.search(text) else words,
        tuple(_said(c.topics) for c in parts if not c.is_positive),
        frozenset(q.value for q in told.quantities),
        frozenset(map(_root, _subject(parts) - names)),
        tuple(re.findall(r"[\w'’]+", text)),
    )


def differs(x: Frame, y: Frame) -> str:  # noqa: PLR0911  one for each kind
    """The kind of the one slot in which y contradicts x; empty where none does, or where they tell of two things."""
    if _renamed(x.spelt, y.spelt):
        return "identity"
    shared = x.named & y.named
    if len(shared) < _ENOUGH or (x.words | y.words) & _WORDS["if"] or (x.words ^ y.words) & _WORDS["other"]:
        return ""
    alike = x.slots.keys() & y.slots.keys()
    others = [key for key in alike if not x.slots[key] & y.slots[key]]
    mine, theirs = x.names - y.named - y.names, y.names - x.named - x.names
    if x.subject - y.named and y.subject - x.named:
        return ""
    is_denied = bool(x.denied) != bool(y.denied)
    if mine and theirs:
        things = shared - x.names - y.names
        sole = (x.words | y.words) & _WORDS["sole"] or len(things) > _ENOUGH
        return "name" if things and sole and not others and not is_denied else ""
    if len(others) == 1:
        kind, _ = others[0]
        single = len(x.slots[others[0]]) == len(y.slots[others[0]]) == 1
        enough = {
            "attribute": True,
            "place": single,
            "quantity": single and not is_denied and len(shared - x.names - y.names) >= _ENOUGH,
            "time": single and x.values == y.values and (shared >= x.named or shared >= y.named),
        }
        return kind if enough[kind] else ""
    if is_denied and not others and not (x.words & _WAS and y.words & _IS and not y.words & _WAS):
        told, names = (y if x.denied else x).named, x.names | y.names
        for said in x.denied or y.denied:
            both, more = len(said & told), len(said - told - names)
            if both >= _ENOUGH and (not more or (more == 1 and both + len(alike) > _ENOUGH)):
                return "polarity"
    return ""


def _renamed(x: tuple[str, ...], y: tuple[str, ...]) -> bool:
    """Whether y repeats x with another name at one place, behind a verb that takes one name alone."""
    unlike = [at for at, (a, b) in enumerate(zip(x, y, strict=False)) if a != b]
    if len(x) != len(y) or len(x) < 4 or not unlike or unlike[-1] - unlike[0] > 1:
        return False
    before = {w.lower() for w in x[max(0, unlike[0] - 5) : unlike[0]]}
    return all(x[at].istitle() and y[at].istitle() for at in unlike) and bool(before & _WORDS["takes_one"])


def _subject(parts: Sequence[Clause]) -> frozenset[str]:
    words = parts[0].words if parts else ()
    verb = first_verb(words)
    return frozenset(map(stem, words[:verb])) & parts[0].stems if verb < len(words) else frozenset()


def _said(stems: frozenset[str]) -> frozenset[str]:
    return frozenset(map(_root, stems - UNITS - EXCLUSIVE.keys() - _WORDS["ours"]))


def _root(word: str) -> str:
    root = _ENDING.sub("", word)
    return root[:-1] if root != word and root[-1] == root[-2:-1] else root
