"""Right traces made by a seed, and the same with one error put in: what a checker must find."""

import random
from fractions import Fraction
from typing import Final, NamedTuple

_SIGNS: Final = {"+": ("+",), "-": ("-", "−"), "*": ("*", "×", "x"), "/": ("/", "÷")}
_KINDS: Final = ("plain", "decimal", "thousands", "chain", "percent")


class Injected(NamedTuple):
    """A trace of steps, the step whose result was changed (-1: none), and what kind it is."""

    steps: tuple[str, ...]
    wrong_step: int
    kind: str


def trace(seed: int, *, step_count: int = 5, inject: bool = True) -> Injected:
    """A trace of right equalities; one of them is made wrong when ``inject``."""
    rng = random.Random(seed)
    wrong = rng.randrange(step_count) if inject else -1
    kinds = [rng.choice(_KINDS) for _ in range(step_count)]
    steps = tuple(_step(rng, kind, at == wrong) for at, kind in enumerate(kinds))
    return Injected(steps, wrong, kinds[wrong] if inject else "")


def _step(rng: random.Random, kind: str, is_wrong: bool) -> str:
    if kind == "percent":
        share, whole = 5 * rng.randint(1, 19), 20 * rng.randint(1, 60)
        result = Fraction(share * whole, 100)
        left = rng.choice([f"{share}% of {whole}", f"{share}% * ${whole}", f"{share}/100 × {whole}"])
        return f"Then {left} = {_plain(_off(rng, result) if is_wrong else result)} of them."
    operator = rng.choice("+-*/")
    a, b = _operands(rng, kind, operator)
    result = {"+": a + b, "-": a - b, "*": a * b, "/": a / b}[operator]
    show = _grouped if kind == "thousands" else _plain
    left = f"{show(a)} {rng.choice(_SIGNS[operator])} {show(b)}"
    if kind == "chain":
        more = rng.randint(2, 9)
        # left = result + more - more = result: the last link carries the error
        final = _off(rng, result) if is_wrong else result
        return f"So {left} = {_plain(result + more)} - {more} = {_plain(final)} in all."
    return f"We get {left} = {show(_off(rng, result) if is_wrong else result)} pieces."


def _operands(rng: random.Random, kind: str, operator: str) -> tuple[Fraction, Fraction]:
    if kind == "decimal":
        a, b = Fraction(rng.randint(101, 999), 100), Fraction(rng.randint(11, 99), 10)
        return (a * b, b) if operator == "/" else (max(a, b), min(a, b))
    high = 90_000 if kind == "thousands" else 99
    low = 1_000 if kind == "thousands" else 2
    a, b = Fraction(rng.randint(low, high)), Fraction(rng.randint(low, high))
    return (a * b, b) if operator == "/" else (max(a, b), min(a, b))


def _off(rng: random.Random, value: Fraction) -> Fraction:
    """Another value, wrong by a digit of its own last place or more, never a rounding."""
    places = len(_plain(value).partition(".")[2])
    while True:
        other = value + Fraction(rng.choice([-20, -10, -3, -2, -1, 1, 2, 3, 10]), 10**places)
        if len(_plain(other).partition(".")[2]) == places:  # with fewer digits it would pass for a rounding
            return other


def _plain(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    return f"{float(value):.4f}".rstrip("0")


def _grouped(value: Fraction) -> str:
    return f"{value.numerator:,}" if value.denominator == 1 else _plain(value)
