"""Units that stand beside numbers in word problems, and how many of one make another."""

from fractions import Fraction
from typing import Final

_FAMILIES: Final[tuple[dict[str, Fraction], ...]] = (
    {
        "second": Fraction(1),
        "minute": Fraction(60),
        "hour": Fraction(3600),
        "day": Fraction(86400),
        "week": Fraction(604800),
    },
    {"month": Fraction(1), "year": Fraction(12), "decade": Fraction(120), "century": Fraction(1200)},
    {"mm": Fraction(1), "cm": Fraction(10), "m": Fraction(1000), "km": Fraction(10**6)},
    {"inch": Fraction(1), "foot": Fraction(12), "feet": Fraction(12), "yard": Fraction(36), "mile": Fraction(63360)},
    {"cent": Fraction(1), "dime": Fraction(10), "quarter": Fraction(25), "dollar": Fraction(100), "penny": Fraction(1)},
    {"ounce": Fraction(1), "pound": Fraction(16), "ton": Fraction(32000)},
    {"mg": Fraction(1, 1000), "g": Fraction(1), "kg": Fraction(1000), "tonne": Fraction(10**6)},
    {"ml": Fraction(1), "liter": Fraction(1000), "l": Fraction(1000)},
    {"cup": Fraction(1), "pint": Fraction(2), "quart": Fraction(4), "gallon": Fraction(16)},
)
_SPELLINGS: Final = {
    **{"pennies": "penny", "centuries": "century", "inches": "inch", "dozens": "dozen", "oz": "ounce", "lb": "pound"},
    **{"min": "minute", "hr": "hour", "sec": "second", "ft": "foot", "gram": "g", "gramme": "g", "buck": "dollar"},
    **{
        f"{long}{end}": f"{short}m"
        for long, short in (("", ""), ("kilo", "k"), ("centi", "c"), ("milli", "m"))
        for end in ("meter", "metre")
    },
    **{"kilogram": "kg", "kilo": "kg", "milligram": "mg", "litre": "liter", "milliliter": "ml", "millilitre": "ml"},
}


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
