"""Equalities in a step of a text, judged in exact fractions; what holds a letter or a word is left alone."""

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Final

from harness.errors import RefusedError
from harness.workloads.reason.programs import value_of

_SIGNS: Final = {
    "\\times": "*",
    "\\cdot": "*",
    "\\div": "/",
    "\\$": "$",
    "×": "*",
    "·": "*",
    "÷": "/",
    "−": "-",
    "–": "-",
}
_RUN: Final = r"[\d.,+\-*/()$% ]"
_SIDES: Final = re.compile(rf"{_RUN}*(?:={_RUN}*)+")
_TIMES: Final = re.compile(r"(?<=[\d)])\s*x\s*(?=[\d(])")
_OPERATOR: Final = re.compile(r"[\d)%]\s*[-+*/]")


def wrong_equality(step: str) -> str:
    """The first equality of a step that does not hold; empty where all that can be worked hold."""
    for left, right in _equalities(step):
        try:
            worked, stated = value_of(_plain(left)), value_of(_plain(right))
        except RefusedError:
            continue
        places = len(right.strip().strip("$%").partition(".")[2])
        # Rounded to its places; a half to the next whole number is an error more often than a rounding.
        rounded = Fraction(1, 2) / 10**places if places else Fraction(49, 100)
        near = Fraction(0) if _OPERATOR.search(right) else rounded
        scales = (1, 100, Fraction(1, 100)) if "%" in left + right else (1,)
        if not any(abs(worked * scale - stated) <= near for scale in scales):
            return f"{left.strip()} = {right.strip()} (correct: {float(worked):g})"
    return ""


def first_wrong(steps: Sequence[str]) -> int:
    """The first step with an equality that does not hold; -1 for none."""
    return next((at for at, step in enumerate(steps) if wrong_equality(step)), -1)


def _equalities(step: str) -> Iterator[tuple[str, str]]:
    """Neighbouring sides of each chain of equalities, the left one with an operator in it."""
    for old, new in _SIGNS.items():
        step = step.replace(old, new)
    step = _TIMES.sub(" * ", step)
    for match in _SIDES.finditer(step):
        before, after = step[: match.start()], step[match.end() :]
        sides = match[0].split("=")
        # A sign or a letter at an end belongs to something that is no plain number: ``x + 3 = 5``, ``f(2) =
        # 3y``.
        starts_inside = re.match(r"\s*[+*/)]|\s+-\s|[^ ]", sides[0]) and re.search(r"[\w^\\}]\s*$", before)
        if starts_inside or re.search(r"(?:^|[^\w'])[^\W\d]\s*$", before):
            sides[0] = ""
        if (re.match(r"[\w^\\{]", after) and not sides[-1].endswith(" ")) or re.search(
            r"[-+*/(]\s*$", sides[-1]
        ):
            sides[-1] = ""
        for left, right in pairwise(sides):
            if _OPERATOR.search(left) and right.strip(" .,"):
                yield left, right.rstrip(" .,")


def _plain(side: str) -> str:
    return re.sub(r"(?<=\d),(?=\d{3})", "", side).replace("$", "").replace("%", "").strip(" ,").rstrip(".")
