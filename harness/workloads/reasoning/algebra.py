"""Linear equations in one unknown: a rearrangement that changes the solution is a fault."""

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Final, NamedTuple

from harness.workloads.reasoning.exact import NotArithmeticError, values

_SIDE: Final = r"[\d.+\-*/() ]*(?:[a-z][\d.+\-*/() a-z]*?)?"
_EQUATION: Final = re.compile(
    rf"(?<![\w.^*/+\-=()<>] )(?<![\w.^*/+\-=()<>{{}}\\])({_SIDE})\s*=\s*({_SIDE}|[\d.+\-*/() ]+?)"
    r"(?=$|[,;:!?$\\]|\.(?:\s|$)|\s+(?:so|and|which|then|we|by|to|this|means)\b)"
)
_NOT_LINEAR: Final = re.compile(r"[a-z]{2}|[a-z]\d|[\d)] +\d|[a-z] +[a-z(\d]|\d{16}")
_TOKEN: Final = re.compile(r"\d+(?:\.\d+)?|\.\d+|\S")
_OTHER_CASE: Final = re.compile(
    r"\b(let|if|case|or|when|suppose|assume|either|try|guess|for|substitut\w*|plug\w*)\b|\^|\.\.", re.I
)


class Solved(NamedTuple):
    """A linear equation: its unknown, its solution, and how it stands in the text."""

    unknown: str
    value: Fraction
    text: str


def algebra_faults(steps: Sequence[str]) -> dict[int, str]:
    """The first step that rearranges a linear equation of the step before (or of itself) wrongly, and why; or none.

    Two equations in the same single unknown are compared when nothing between them starts another case. The first one
    may not be a plain assignment: values are assigned anew all the time.
    """
    before: Solved | None = None
    for at, step in enumerate(steps):
        kept: Solved | None = None
        if not _OTHER_CASE.search(step) and step.count("=") <= 4:
            for match in _EQUATION.finditer(step.translate(str.maketrans("×·−–", "**--"))):
                here, last = solve(match[1], match[2]), kept or before
                if here and last and here.unknown == last.unknown and here.value != last.value:
                    return {at: f"{here.text}: {last.text} has the solution {last.unknown} = {last.value}"}
                is_plain = any(re.fullmatch(r"\s*[a-z]\s*", side) for side in match.groups())
                kept = kept if here is None else None if is_plain else here
        before = kept
    return {}


def solve(left: str, right: str) -> Solved | None:
    """The solution of a linear equation in one unknown; None where it is none, or has not exactly one solution."""
    text = f"{left.strip()} = {right.strip()}"
    unknowns = set(re.findall(r"[a-z]", text))
    if len(unknowns) != 1 or len(text) > 80 or _NOT_LINEAR.search(text):
        return None
    unknown = unknowns.pop()
    try:
        (a, b), (c, d) = (_linear(side, unknown) for side in (left, right))
    except NotArithmeticError:
        return None
    return None if a == c else Solved(unknown, (d - b) / (a - c), text)


def _linear(side: str, unknown: str) -> tuple[Fraction, Fraction]:
    """(a, b) of a x + b, from its values at three places."""
    tokens = _TOKEN.findall(re.sub(r"(?<=[\da-z)])\s*(?=[a-z(])", "*", side))  # 2(x - 1) is 2 * (x - 1)
    places = ("0", "1", "1009")
    b, once, more = (min(values([place if t == unknown else t for t in tokens])) for place in places)
    if more - b != 1009 * (once - b):
        raise NotArithmeticError("not linear")
    return once - b, b
