"""A model's own solution as a small program: assignments with arithmetic, worked exactly and never executed.

A small model writes a program more often right than it judges a stranger's step, and arithmetic in a program has no
slips (Gao et al. 2023, "PAL: Program-aided Language Models", arXiv:2211.10435). Where a trace ends in another answer
than the program, its first result that the program never had is the step to doubt.
"""

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Final

from harness.workloads.reasoning.exact import MAX_EXPONENT

_MOST_BITS: Final = 4096
_BINARY: Final[Mapping[type, Callable[[Fraction, Fraction], Fraction]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: lambda a, b: Fraction(a // b),
    ast.Mod: operator.mod,
}
_CALLS: Final[Mapping[str, Callable[..., Fraction]]] = {
    "min": min,
    "max": max,
    "abs": abs,
    "int": lambda a: Fraction(int(a)),
    "round": lambda a, *digits: Fraction(round(a, *map(int, digits))),
}
_NUMBER: Final = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_RESULT: Final = re.compile(r"(?:=|≈|\bis|\bare)[^\d=\n]{0,12}?(-?\d[\d,]*(?:\.\d+)?)(?!\s*[-+*/×÷^(\d])")


def values(program: str) -> list[Fraction]:
    """What each line of assignments gives, in order; nothing where a line is anything else, or passes a cap."""
    known: dict[str, Fraction] = {}
    found = []
    try:
        for line in ast.parse(program).body:
            if isinstance(line, ast.Assign) and len(line.targets) == 1:
                target, value = line.targets[0], _value(line.value, known)
            elif isinstance(line, ast.AugAssign):
                target, value = line.target, _value(ast.BinOp(line.target, line.op, line.value), known)
            else:
                return []
            if not isinstance(target, ast.Name):
                return []
            known[target.id] = value
            found.append(value)
    except (SyntaxError, ValueError, KeyError, TypeError, ArithmeticError, RecursionError, MemoryError):
        return []
    return found


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
            if power.denominator != 1 or abs(power) > MAX_EXPONENT:
                raise ValueError("exponent out of range")
            value = _value(left, known) ** int(power)
        case ast.BinOp(left=left, op=sign, right=right):
            value = _BINARY[type(sign)](_value(left, known), _value(right, known))
        case ast.Call(func=ast.Name(id=name), args=parts, keywords=[]):
            value = Fraction(_CALLS[name](*(_value(part, known) for part in parts)))
        case _:
            raise ValueError(f"no arithmetic: {ast.dump(node)[:40]}")
    if max(abs(value.numerator), value.denominator).bit_length() > _MOST_BITS:
        raise ValueError("too large")
    return value


def doubted(steps: Sequence[str], problem: str, own: Sequence[Fraction]) -> int:
    """The first step with a result that is neither in the problem nor in the program; -1 where both end alike.

    ``own`` are the program's values, its answer last. The last step where each result is known; -1 without a program,
    and where the trace ends without a number.
    """
    ends = _NUMBER.findall(steps[-1])
    if not own or not ends or any(_is(own[-1], end) for end in ends[-2:]):
        return -1
    given = [Fraction(n.rstrip(",").replace(",", "")) for n in _NUMBER.findall(problem)]
    known = [*given, *own, *(100 * v for v in own), *(-v for v in own)]
    for at, step in enumerate(steps):
        if any(not any(_is(v, told) for v in known) for told in _RESULT.findall(step)):
            return at
    return len(steps) - 1


def _is(value: Fraction, told: str) -> bool:
    """Whether a value is the number told, rounded to its places."""
    plain = told.rstrip(",").replace(",", "")
    places = len(plain.partition(".")[2])
    return abs(value - Fraction(plain)) * 10**places <= Fraction(1, 2)
