"""Units that stand beside numbers in word problems, and how many of one make another."""

from fractions import Fraction
from typing import Final

from harness.workloads._language.texts import shipped_table

_UNITS: Final = shipped_table("english")["units"]
_FAMILIES: Final = tuple(
    {unit: Fraction(count) for unit, count in zip(*[iter(line.split())] * 2, strict=True)}
    for line in _UNITS["families"]
)
_SPELLINGS: Final = {word: unit for unit, words in _UNITS["spellings"].items() for word in words.split()}


def factor_of(left: str, right: str, left_money: bool = False, right_money: bool = False) -> Fraction | None:
    """What the left value is multiplied by to be in the right unit; 1 where the units do not differ or are not known.

    None when both are known and measure different things: such a pair is no claim of equality in numbers.
    """
    left, right = singular(left), singular(right)
    left = "dollar" if left_money and not left else left
    right = "dollar" if right_money and not _family(right) else right
    a, b = _family(left), _family(right)
    if a is None or b is None:
        return _dozen(left, right)
    if a is not b:
        return Fraction(1)
    return a[left] / a[right]


def _dozen(left: str, right: str) -> Fraction:
    if left == right:
        return Fraction(1)
    return Fraction(12) if left == "dozen" else Fraction(1, 12) if right == "dozen" else Fraction(1)


def base_of(unit: str) -> tuple[str, Fraction] | None:
    """The unit that others of its kind are counted in, and how many of it one ``unit`` is; None for no known unit."""
    family = _family(singular(unit))
    if family is None:
        return None
    return next(name for name, count in family.items() if count == 1), family[singular(unit)]


def _family(unit: str) -> dict[str, Fraction] | None:
    return next((f for f in _FAMILIES if unit in f), None)


def singular(unit: str) -> str:
    """One spelling of a unit."""
    if unit not in _SPELLINGS and unit.endswith("s") and len(unit) > 2:
        unit = unit[:-1]
    return _SPELLINGS.get(unit, unit)
