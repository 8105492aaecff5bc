"""Arithmetic in exact fractions, with caps; a text is never executed.

Grammar: sum of products of powers; numbers with thousands and decimals; + - * / ^, brackets, a percent sign after an
operand. ``100 - 20%`` has two readings (99.8, and 80), so a text's value is a set.
"""

import re
from fractions import Fraction
from typing import Final

MAX_DIGITS: Final = 60
MAX_EXPONENT: Final = 64
_MAX_TOKENS: Final = 200
_BINDS: Final = {"+": 1, "-": 1, "*": 2, "/": 2}
Number = Fraction | int
"""Whole numbers stay whole: they are worked with ten times as fast as fractions."""
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?|\.\d+")


class NotArithmeticError(ValueError):
    """The tokens are no expression, or pass a cap."""


def values(tokens: list[str]) -> frozenset[Fraction]:
    """Every value that a reading of the tokens gives.

    Raises:
        NotArithmeticError: No reading, division by zero, or a cap is passed.
    """
    if not tokens or len(tokens) > _MAX_TOKENS:
        raise NotArithmeticError("nothing, or too much")
    found: set[Fraction] = set()
    for relative in (False, True) if "%" in tokens else (False,):
        parser = _Parser(tokens, relative)
        found.add(Fraction(parser.binary()[0]))
        if parser.at != len(tokens):
            raise NotArithmeticError(f"unexpected {tokens[parser.at]!r}")
    return frozenset(found)


class _Parser:
    def __init__(self, tokens: list[str], relative: bool) -> None:
        self.tokens, self.at, self._relative, self._depth = tokens, 0, relative, 0

    def binary(self, least: int = 1) -> tuple[Number, bool]:
        """Value of what is bound at least as tightly as ``least``, and whether it is a lone percentage."""
        total, is_percent = self._power()
        while _BINDS.get(self._next(), 0) >= least:
            operator = self._take()
            part, of_total = self.binary(_BINDS[operator] + 1)
            is_percent = False
            if operator in "+-":
                part = total * part if of_total and self._relative else part
                total += part if operator == "+" else -part
            elif operator == "/" and part == 0:
                raise NotArithmeticError("division by zero")
            else:
                total = total * part if operator == "*" else Fraction(total, part)
                cap(total)
        return total, is_percent

    def _power(self) -> tuple[Number, bool]:
        if self._next() in {"-", "+"}:
            sign = -1 if self._take() == "-" else 1
            value, is_percent = self._power()
            return sign * value, is_percent
        base = self._operand()
        if self._next() == "^":
            self._take()
            exponent, _ = self._power()
            power = exponent.numerator
            if exponent.denominator != 1 or abs(power) > MAX_EXPONENT or (base == 0 and power < 0):
                raise NotArithmeticError("exponent out of range")
            base = Fraction(base) ** power
            cap(base)
        is_percent = False
        while self._next() == "%":
            self._take()
            base, is_percent = Fraction(base, 100), True
        return base, is_percent

    def _operand(self) -> Number:
        sign = self._take()
        if sign == "(":
            self._depth += 1
            if self._depth > 30:
                raise NotArithmeticError("too deep")
            value = self.binary()[0]
            if self._take() != ")":
                raise NotArithmeticError("bracket left open")
            self._depth -= 1
            return value
        if not _NUMBER.fullmatch(sign) or len(sign) > MAX_DIGITS:
            raise NotArithmeticError(f"not a number of at most {MAX_DIGITS} digits: {sign[:80]!r}")
        return int(sign) if sign.isdigit() else Fraction(sign)

    def _next(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def _take(self) -> str:
        if self.at >= len(self.tokens):
            raise NotArithmeticError("ends too early")
        self.at += 1
        return self.tokens[self.at - 1]


def cap(value: Number) -> None:
    """Raises NotArithmeticError for a number of more than some 1,200 digits."""
    if max(abs(value.numerator), value.denominator).bit_length() > 4096:
        raise NotArithmeticError("too large")
