"""Linear equations in one unknown: a rearrangement that changes the solution is a fault."""

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Final, NamedTuple

_EQUATION: Final = re.compile(
    r"(?<![\w.^*/+\-=()<>] )(?<![\w.^*/+\-=()<>{}\\])([\d.+\-*/() ]*[a-z][\d.+\-*/() a-z]*?|[\d.+\-*/() ]+)"
    r"\s*=\s*([\d.+\-*/() a-z]+?)(?=$|[,;:!?$\\]|\.(?:\s|$)|\s+(?:so|and|which|then|we|by|to|this|means)\b)"
)
_TOKEN: Final = re.compile(r"\d+(?:\.\d+)?|[a-z]|[-+*/()]")
_OTHER_CASE: Final = re.compile(r"\b(let|if|case|or|when|suppose|assume|either|try|guess|for|substitut\w*|plug\w*)\b", re.I)


class AlgebraFault(NamedTuple):
    """A step whose equation has another solution than the one before it."""

    step: int
    reason: str


class _Solved(NamedTuple):
    unknown: str
    value: Fraction
    text: str


def algebra_faults(steps: Sequence[str]) -> list[AlgebraFault]:
    """Steps that rearrange a linear equation of the step before (or of the same step) wrongly.

    Two equations in the same single unknown are compared when nothing between them starts another case. The first one
    may not be a plain assignment: values are assigned anew all the time.
    """
    found = []
    before: _Solved | None = None
    for at, step in enumerate(steps):
        kept: _Solved | None = None
        if not _OTHER_CASE.search(step) and step.count("=") <= 4 and "^" not in step and ".." not in step:
            for match in _EQUATION.finditer(step.translate(str.maketrans("×·−–", "**--"))):
                here = solve(match[1], match[2])
                last = kept or before
                if here and last and here.unknown == last.unknown and here.value != last.value:
                    reason = f"{here.text}: {last.text} has the solution {last.unknown} = {last.value}"
                    found.append(AlgebraFault(at, reason))
                if here:
                    plain = re.fullmatch(r"\s*[a-z]\s*", match[1]) or re.fullmatch(r"\s*[a-z]\s*", match[2])
                    kept = None if plain else here
        before = kept
    return found[:1]


def solve(left: str, right: str) -> _Solved | None:
    """The solution of a linear equation in one unknown; None where it is none, or has not exactly one solution."""
    unknowns = set(re.findall(r"[a-z]", left + right))
    if len(unknowns) != 1 or re.search(r"[a-z]{2}|[a-z]\d|[\d)] +\d|[a-z] +[a-z(\d]", f"{left.strip()}={right.strip()}"):
        return None
    try:
        (a, b), (c, d) = _Linear(left).whole(), _Linear(right).whole()
    except (ValueError, ZeroDivisionError):
        return None
    return None if a == c else _Solved(unknowns.pop(), (d - b) / (a - c), f"{left.strip()} = {right.strip()}")


class _Linear:
    """Parses a side to (a, b) of a x + b."""

    def __init__(self, text: str) -> None:
        self._tokens = _TOKEN.findall(text)
        self._at = 0

    def whole(self) -> tuple[Fraction, Fraction]:
        """The whole side."""
        side = self._sum()
        if self._at != len(self._tokens):
            raise ValueError("rest")
        return side

    def _sum(self) -> tuple[Fraction, Fraction]:
        a, b = self._product()
        while self._next() in {"+", "-"}:
            sign = 1 if self._take() == "+" else -1
            c, d = self._product()
            a, b = a + sign * c, b + sign * d
        return a, b

    def _product(self) -> tuple[Fraction, Fraction]:
        a, b = self._factor()
        while (sign := self._next()) and (sign in "*/(" or sign.isalpha()):
            if sign in "*/":
                self._take()
            c, d = self._factor()
            if sign == "/":
                if c:
                    raise ValueError("not linear")
                a, b = a / d, b / d
            elif a and c:
                raise ValueError("not linear")
            else:
                a, b = a * d + c * b, b * d
        return a, b

    def _factor(self) -> tuple[Fraction, Fraction]:
        token = self._take()
        if token == "-":
            a, b = self._factor()
            return -a, -b
        if token == "(":
            side = self._sum()
            if self._take() != ")":
                raise ValueError("bracket")
            return side
        if token.isalpha():
            return Fraction(1), Fraction(0)
        return Fraction(0), Fraction(token)

    def _next(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self) -> str:
        if self._at >= len(self._tokens):
            raise ValueError("ends")
        self._at += 1
        return self._tokens[self._at - 1]
