"""Arithmetic in exact fractions: equalities in the steps of a text, and small programs, which are never executed.

What holds a letter or a word is left alone. A small model writes a program more often right than it works out
numbers in words, and arithmetic in a program has no slips (Gao et al. 2023, "PAL: Program-aided Language
Models", arXiv:2211.10435).
"""

import ast
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

from harness.core.errors import RefusedError

_MAX_EXPONENT = 64
_MAX_BITS = 4096
_MAX_CHARS = 2000
_BINARY: dict[type, Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_SIGNS = {
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
_RUN = r"[\d.,+\-*/()$% ]"
_SIDES = re.compile(rf"{_RUN}*(?:={_RUN}*)+")
_TIMES = re.compile(r"(?<=[\d)])\s*x\s*(?=[\d(])")
_OPERATOR = re.compile(r"[\d)%]\s*[-+*/]")


def worked(program: str) -> Fraction:
    """What the last assignment of a program gives.

    Raises:
        RefusedError: A line is no assignment, divides by zero, or passes a cap (2,000 characters, exponents of
            64, some 1,200 digits).
    """
    known: dict[str, Fraction] = {}
    last = ""
    try:
        for line in ast.parse(program if len(program) <= _MAX_CHARS else "").body:
            match line:
                case ast.Assign(targets=[ast.Name(id=last)], value=value):
                    known[last] = _value(value, known)
                case ast.AugAssign(target=ast.Name(id=last), op=sign, value=value):
                    known[last] = _value(ast.BinOp(ast.Name(last), sign, value), known)
                case _:
                    raise ValueError("no assignment")  # noqa: TRY301
        return known[last]
    except (SyntaxError, ValueError, LookupError, ArithmeticError, RecursionError, MemoryError) as error:
        raise RefusedError(f"no arithmetic that is worked here ({error}): {program[:60]!r}") from error


def _value(node: ast.expr, known: Mapping[str, Fraction]) -> Fraction:
    match node:
        case ast.Constant(value=int() | float() as number):
            value = Fraction(str(number))
        case ast.Name(id=name):
            value = known[name]
        case ast.UnaryOp(op=ast.USub(), operand=part):
            value = -_value(part, known)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            power = _value(right, known)
            if power.denominator != 1 or abs(power) > _MAX_EXPONENT:
                raise ValueError("exponent out of range")
            value = _value(left, known) ** int(power)
        case ast.BinOp(left=left, op=sign, right=right):
            value = Fraction(_BINARY[type(sign)](_value(left, known), _value(right, known)))
        case _:
            raise ValueError("no arithmetic")
    if max(abs(value.numerator), value.denominator).bit_length() > _MAX_BITS:
        raise ValueError("too large")
    return value


def wrong_equality(step: str) -> str:
    """The first equality of a step that does not hold; empty where all that can be worked hold."""
    for left, right in _equalities(step):
        try:
            exact, stated = _exact(left), _exact(right)
        except RefusedError:
            continue
        places = len(right.strip().strip("$").partition(".")[2])
        # Rounded to its places; a half to the next whole number is an error more often than a rounding.
        rounded = Fraction(1, 2) / 10**places if places else Fraction(49, 100)
        if abs(exact - stated) > (0 if _OPERATOR.search(right) else rounded):
            return f"{left.strip()} = {right.strip()} (correct: {float(exact):g})"
    return ""


def first_wrong(steps: Sequence[str]) -> int:
    """Index of the first step with an equality that does not hold, or -1 if all hold."""
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
            if _OPERATOR.search(left) and right.strip(" .,") and "%" not in left + right:
                yield left, right.rstrip(" .,")


def _exact(side: str) -> Fraction:
    """The value of one side; RefusedError as for a program."""
    plain = re.sub(r"(?<=\d),(?=\d{3})", "", side).replace("$", "")
    return worked("value = " + plain.strip(" ,").rstrip("."))
