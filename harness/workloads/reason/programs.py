"""Arithmetic and small programs of assignments, worked in exact fractions and never executed.

A small model writes a program more often right than it works out numbers in words, and arithmetic in a program
has no slips (Gao et al. 2023, "PAL: Program-aided Language Models", arXiv:2211.10435).
"""

import ast
import operator
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Final, TypeVar

from harness.errors import RefusedError

T = TypeVar("T")
MAX_EXPONENT: Final = 64
_MAX_BITS: Final = 4096
_MAX_CHARS: Final = 2000
_BINARY: Final[Mapping[type, Callable[[Fraction, Fraction], Fraction]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: lambda a, b: Fraction(a // b),
    ast.Mod: operator.mod,
}
_CALLS: Final[Mapping[str, Callable[..., Fraction]]] = {"min": min, "max": max, "abs": abs}


def value_of(expression: str) -> Fraction:
    """The exact value of an arithmetic expression in Python's notation.

    Raises:
        RefusedError: It is no arithmetic, divides by zero, or passes a cap (exponents of 64, some 1,200
            digits).
    """
    return _guarded(lambda: _value(ast.parse(expression.strip(), mode="eval").body, {}), expression)


def worked(program: str) -> list[Fraction]:
    """What each assignment of a program gives, in order; RefusedError where a line is anything else."""

    def work() -> list[Fraction]:
        known: dict[str, Fraction] = {}
        results = []
        for line in ast.parse(program).body:
            match line:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    known[name] = _value(value, known)
                case ast.AugAssign(target=ast.Name(id=name), op=sign, value=value):
                    known[name] = _value(ast.BinOp(ast.Name(name), sign, value), known)
                case _:
                    raise ValueError("no assignment of arithmetic")
            results.append(known[name])
        return results

    return _guarded(work, program)


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
            value = _CALLS[name](*(_value(part, known) for part in parts))
        case _:
            raise ValueError("no arithmetic")
    if max(abs(value.numerator), value.denominator).bit_length() > _MAX_BITS:
        raise ValueError("too large")
    return value


def _guarded(work: Callable[[], T], text: str) -> T:
    if len(text) > _MAX_CHARS:
        raise RefusedError(f"{len(text)} characters of arithmetic: at most {_MAX_CHARS} are worked")
    try:
        return work()
    except (
        SyntaxError,
        ValueError,
        LookupError,
        TypeError,
        ArithmeticError,
        RecursionError,
        MemoryError,
    ) as error:
        raise RefusedError(f"no arithmetic that is worked here ({error}): {text[:60]!r}") from error
