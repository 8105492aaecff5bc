"""Orders told in a text (``older than``, ``finished before``, ``costs more than``), and the circles that they close."""

import re
from typing import Final, NamedTuple

from harness.workloads._language.figures import ENGLISH
from harness.workloads._language.statements import is_verb, stem

_TOLD: Final = ENGLISH["orders"]
_KIN: Final = frozenset(f"{_TOLD['parents']} {_TOLD['children']} left right north south east west".split())
_PLACES: Final = frozenset(("before", "after", "above", "below", "beneath", "behind", "ahead"))
_REVERSED: Final = {word: base for base, words in _TOLD["reversed"].items() for word in words.split()}
CHANGE: Final = re.compile(
    rf"\b(used to|no longer|any ?more|(?-i:may)|{'|'.join(ENGLISH['search']['change'].split())})\b", re.I
)
"""Words of change: what is said with one of them is compared with nothing before."""
_NO_CHANGE: Final = re.compile(r"\b(left|after|later|more|than)\b", re.I)
_ASIDE: Final = re.compile(r",? in turn,?|^((in|on|at|of|by|for|kilo) [^,]*|hence|that),", re.I)
_SIGN: Final = re.compile(r"\b([A-Za-z]\w*) ([<>]) ([A-Za-z]\w*)\b")
_DENIAL: Final = frozenset(ENGLISH["kinds"]["denials"].split())
_DETERMINERS: Final = frozenset(ENGLISH["kinds"]["determiners"].split()) - {"of"}
_ENDS: Final = frozenset(_TOLD["ends"].split())


class Order(NamedTuple):
    """``a`` stands before ``b`` by the measure ``how``."""

    how: str
    a: str
    b: str


def order(text: str) -> Order | None:
    """The order that a sentence tells of two things that it names in a few words; None where it tells none."""
    text = _ASIDE.sub("", text)
    if sign := _SIGN.search(text):
        a, b = (sign[1], sign[3]) if sign[2] == "<" else (sign[3], sign[1])
        return Order("<", a, b)
    if CHANGE.search(_NO_CHANGE.sub("", text)):
        return None
    spelt = re.findall(r"[\w']+", text)
    words = [w.lower() for w in spelt]
    at, first = _relation(words)
    verb = next((n for n in range(1, at) if is_verb(words, n) and spelt[n].islower()), at)
    if verb == at or _DENIAL & set(words):
        return None
    last = next((n for n in range(first + 1, len(words)) if words[n] in _ENDS), len(words))
    a, b = _named(spelt[:verb]), _named(spelt[first:last])
    if not a or not b or len(f"{a} {b}".split()) > 8:
        return None
    how, before = words[at], words[at - 1]
    act = before if at - 1 > verb and before.endswith(("ed", "born", "built", "made")) else ""
    if how in ("more", "less"):
        word = words[at + 1] if words[at + 1] != "than" else stem(words[verb])
        a, b, how = (a, b, word) if how == "more" else (b, a, word)
    elif how in _REVERSED:
        a, b, how = b, a, _REVERSED[how]
    return Order(f"{act} {_TOLD['same'].get(how, how)}", a, b)


def _relation(words: list[str]) -> tuple[int, int]:
    """Where the word that compares stands, and where what it is compared with begins; twice 0 for none."""
    for at in range(1, len(words) - 1):
        if words[at + 1] == "than" or (words[at] in ("more", "less") and "than" in words[at + 2 : at + 4]):
            than = words.index("than", at)
            near = [n for n in range(at, max(0, at - 2), -1) if words[n].endswith("er")]
            how = at if words[at] in ("more", "less") else near[0] if near else 0
            return (how, than + 1) if how else (0, 0)
        if words[at] in _PLACES or (words[at] in _KIN and words[at + 1] == "of"):
            return at, at + 1 + (words[at + 1] == "of")
    return 0, 0


def _named(spelt: list[str]) -> str:
    """What a group of words names: its names, where it has any, else its words without determiners."""
    said = [w for w in spelt if w.lower() not in _DETERMINERS]
    return " ".join([w for w in said if w[0].isupper()] or said).lower()


class Orders:
    """What was told so far; ``closes`` notes one more and says whether a was already below b by any path."""

    def __init__(self) -> None:
        self._below: dict[str, dict[str, set[str]]] = {}

    def closes(self, told: Order) -> bool:
        """Whether the order closes a circle."""
        graph = self._below.setdefault(told.how, {})
        graph.setdefault(told.a, set()).add(told.b)
        seen: set[str] = set()
        waiting = [told.b]
        while waiting:
            node = waiting.pop()
            if node == told.a:
                return True
            if node not in seen:
                seen.add(node)
                waiting += graph.get(node, ())
        return False
