"""Numbers with units, dates and clock times of a text in normal forms: ``3.5 km`` is ``3,500 metres``."""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import date
from fractions import Fraction
from typing import Final, NamedTuple

from harness.workloads._language.texts import text_table

ENGLISH: Final = text_table("english")
"""Words that the exact checks know, by kind."""

_UNITS: Final = ENGLISH["units"]
_FAMILIES: Final = tuple(
    {unit: Fraction(count) for unit, count in zip(*[iter(line.split())] * 2, strict=True)}
    for line in _UNITS["families"]
)
_SPELLINGS: Final[dict[str, str]] = {
    word: unit for unit, words in _UNITS["spellings"].items() for word in words.split()
}
UNIT_WORDS: Final = frozenset(_SPELLINGS) | frozenset(unit for family in _FAMILIES for unit in family)
"""Words for units and their signs, in small letters and the singular."""


def _listed(kind: str) -> list[str]:
    words: str = ENGLISH["numbers"][kind]
    return words.split()


_SMALL: Final = {word: at for at, word in enumerate(_listed("small"))} | {
    word: 10 * at for at, word in enumerate(_listed("tens"), 2)
}
NUMBER_WORDS: Final = tuple(_SMALL)
"""Words for numbers below 20, and tens."""
_LARGE: Final = {"dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9}
_PARTS: Final = {"half": Fraction(1, 2), "third": Fraction(1, 3), "quarter": Fraction(1, 4)}
_ORDINALS: Final = {word: at for at, word in enumerate(_listed("ordinals"), 1)}
_MONTHS: Final = _listed("months")
_DAYS: Final = _listed("days")
_MONTH: Final = "(" + "|".join(f"{m[:3]}(?:{m[3:]})?" for m in _MONTHS).replace("(?:t", "(?:t|t") + r")\b\.?"
_DAY: Final = r"(\d{1,2})(?:st|nd|rd|th)?"
_YEAR: Final = r"(1\d{3}|20\d\d)"
_NTH: Final = "(" + "|".join(_ORDINALS) + ")"
_PARTS_OF_TIME: Final = {"early": 1, "beginning": 1, "start": 1, "mid": 2, "middle": 2, "late": 3, "end": 3}
_PART: Final = "(?<!by the )(" + "|".join(_PARTS_OF_TIME) + ")[ -](?:of |in )?"
_HOLIDAYS: Final = {
    re.compile(rf"\b{name}\b", re.I): {("d", day), ("m", month)} for name, day, month in ENGLISH["numbers"]["holidays"]
}
_DATES: Final = tuple(
    (re.compile(rf"\b{pattern}(?!\w)", re.I), fields)
    for pattern, fields in (
        (rf"{_YEAR}-(\d\d)-(\d\d)", "ynd"),
        (rf"\d\d?[/.]\d\d?[/.]{_YEAR}", "y"),  # which is the month, nobody knows
        (r"(1\d\d|20\d)0s", "e"),
        (rf"(?:{_NTH}|(\d\d?)(?:st|nd|rd|th)) century", "cc"),
        (rf"{_PART}{_MONTH},? {_YEAR}", "pmy"),
        (rf"{_PART}{_MONTH}(?! \d)", "pm"),
        (rf"{_PART}{_YEAR}", "qy"),
        (rf"{_DAY}(?: of)? {_MONTH},? {_YEAR}", "dmy"),
        (rf"{_NTH} of {_MONTH},? {_YEAR}", "omy"),
        (rf"{_MONTH} {_DAY},? {_YEAR}", "mdy"),
        (rf"{_DAY}(?: of)? {_MONTH}", "dm"),
        (rf"{_NTH} of {_MONTH}", "om"),
        (rf"{_MONTH} {_DAY}(?![:\d])", "md"),
        (rf"{_MONTH}(?: of)?,? {_YEAR}", "my"),
        (
            r"(?:in|since|until|till|from|to|by|of|before|after|during|and|around|year|late|early|between|for|than) "
            rf"{_YEAR}(?![\d,]*[.,]?\d)(?! ?(?:%|people|[a-z]+s\b))",
            "y",
        ),
        (rf"(?:in|every|since|until|till|of|to|each|from|late|early|by) {_MONTH}", "m"),
        (r"(?:on|by|until|till|since|from|to|before|after) the (\d\d?)(?:st|nd|rd|th)(?= and\b|[.,;:!?)]|$)", "d"),
    )
)
_HOURS: Final = "|".join([*list(_SMALL)[1:13], r"\d{1,2}"])
_TIME: Final = re.compile(
    r"\b(?:(\d{1,2}):(\d\d)(?: ?([ap])\.?m\b\.?)?|(\d{1,2}) ?(?:([ap])\.?m\b\.?|o'clock)|(noon|midnight)"
    rf"|(half|quarter|five|ten|twenty|twenty-five) past ({_HOURS})\b|({_HOURS}) o'clock"
    rf"|(?<=at )({_HOURS}) in the (morning|afternoon|evening))",
    re.I,
)
_WEEKDAY: Final = re.compile(r"\b(" + "|".join(_DAYS) + r")s?\b", re.I)
_WORD: Final = "(?:" + "|".join([*_SMALL, *_LARGE]) + ")"
_NUMBER: Final = re.compile(
    rf"(?P<money>[$€£]) ?(?P<paid>\d[\d,]*(?:\.\d+)?)(?: (?P<paid_times>{'|'.join(_LARGE)})\b)?"
    rf"|(?<![\w.])(?P<digits>\d[\d,]*(?:\.\d+)?)(?: (?P<times>{'|'.join(_LARGE)})\b)?"
    r"|\b(?:a |one |(?P<parts>two|three) )?(?P<part>half|third|quarter)s?(?= of\b| an? | the )"
    rf"|\b(?P<words>(?:a )?{_WORD}(?:[ -](?:and )?{_WORD})*)\b(?P<and_half> and a half)?",
    re.I,
)
_MONEY: Final = {"$": "dollar", "€": "euro", "£": "pound"}
_UNIT: Final = re.compile(r"\s?(%|°|-?[A-Za-z]+)(?: of an? ([a-z]+))?")
_NO_UNIT: Final = frozenset(_listed("no_unit"))


class Quantity(NamedTuple):
    """A number, in the base of its unit where that is known (``second``, ``mm``, ``cent`` ...), and where it stands.

    ``unit`` is ``%`` for shares, the counted noun where no unit is known, empty where nothing follows.
    """

    value: Fraction
    unit: str
    start: int
    end: int


class Moment(NamedTuple):
    """A date or a time: values of its fields.

    ``y m d w t h`` are year, month, day, weekday, minutes since midnight, and minutes on a clock of twelve hours;
    ``c e`` century and decade (192 for the 1920s); ``q p`` early, middle or late (1 2 3) in a year and in a month.
    """

    values: frozenset[tuple[str, int]]
    start: int
    end: int


class Figures(NamedTuple):
    """What a text says in figures: quantities, dates and times, and the values of each field of those."""

    quantities: tuple[Quantity, ...]
    mentions: tuple[Moment, ...]
    moments: dict[str, frozenset[int]]


def figures(text: str) -> Figures:
    """Everything in figures that a text says."""
    mentions: list[Moment] = []
    rest = text
    for pattern, fields in _DATES:
        for match in pattern.finditer(rest):
            values = zip(fields, match.groups(), strict=True)
            found = frozenset((_FIELD.get(f, f), _field(f, v.lower())) for f, v in values if v)
            # Words before a date (in, by the) are no part of it, nor is a full stop after it.
            start = next(match.start(group) for group, part in enumerate(match.groups(), 1) if part)
            mentions.append(Moment(found, start, match.start() + len(match[0].rstrip("."))))
        rest = pattern.sub(_blank, rest)
    mentions += [Moment(frozenset(d), *m.span()) for name, d in _HOLIDAYS.items() for m in name.finditer(rest)]
    for match in _TIME.finditer(rest):
        ends = match[0].endswith(".") and match[0].count(".") == 1  # the full stop of "9 am.", but not of "9 a.m."
        mentions.append(Moment(frozenset({_clock(match)}), match.start(), match.end() - ends))
    rest = _TIME.sub(_blank, rest)
    mentions += [Moment(frozenset({("w", _DAYS.index(m[1].lower()))}), *m.span()) for m in _WEEKDAY.finditer(rest)]
    moments: dict[str, set[int]] = {}
    for field, value in (pair for m in mentions for pair in m.values):
        moments.setdefault(field, set()).add(value)
    quantities = [q for m in _NUMBER.finditer(rest) if (q := _quantity(m, rest)) is not None]
    return Figures(tuple(quantities), tuple(mentions), {field: frozenset(v) for field, v in moments.items()})


def implied(moments: Mapping[str, frozenset[int]]) -> dict[str, frozenset[int]]:
    """The fields, and those that follow from them: a full date tells its weekday, a year its century, and so on."""
    found = {field: set(values) for field, values in moments.items()}

    def add(field: str, values: Iterable[int]) -> None:
        found.setdefault(field, set()).update(values)

    for year in moments.get("y", ()):
        add("e", [year // 10])
        add("c", [(year - 1) // 100 + 1])
    for month in moments.get("m", ()):
        add("q", [part for part, months in ((1, range(1, 6)), (2, range(4, 10)), (3, range(8, 13))) if month in months])
    for day in moments.get("d", ()):
        add("p", [part for part, days in ((1, range(1, 13)), (2, range(9, 22)), (3, range(19, 32))) if day in days])
    add("h", [minutes % 720 for minutes in moments.get("t", ())])
    add("t", [minutes + half for minutes in moments.get("h", ()) for half in (0, 720)])
    full = [moments.get(field, frozenset()) for field in "ymd"]
    if all(len(values) == 1 for values in full):
        with suppress(ValueError):  # no such day
            add("w", [date(*(next(iter(values)) for values in full)).weekday()])
    return {field: frozenset(values) for field, values in found.items() if values}


def spelt_alike(text: str, other: str) -> str:
    """The text with its figures spelt as ``other`` spells them, where both name the same value in known units.

    ``one and a half hours`` becomes ``90 minutes`` beside a text that says ``90 minutes``.
    """
    ours, theirs = figures(text), figures(other)
    swaps: list[tuple[int, int, str]] = []
    for moment in ours.mentions:
        same = next((m for m in theirs.mentions if _is_same(moment, m)), None)
        if same:
            swaps.append((moment.start, moment.end, other[same.start : same.end]))
    for quantity in ours.quantities:
        alike = [q for q in theirs.quantities if q.value == quantity.value and q.unit == quantity.unit]
        if alike:
            swaps.append((quantity.start, quantity.end, other[alike[0].start : alike[0].end]))
    for start, end, instead in sorted(swaps, reverse=True):
        text = text[:start] + instead + text[end:]
    return text


def _is_same(moment: Moment, other: Moment) -> bool:
    if moment.values == other.values:
        return True
    told = implied({field: frozenset({value}) for field, value in other.values})
    return all(field in "th" and value in told.get(field, ()) for field, value in moment.values)


_FIELD: Final = {"n": "m", "o": "d"}


def _blank(match: "re.Match[str]") -> str:
    return " " * len(match[0])


def _field(field: str, text: str) -> int:
    if field == "m":
        return next(at for at, month in enumerate(_MONTHS, 1) if month.startswith(text[:3]))
    if field in "pq":
        return _PARTS_OF_TIME[text]
    return _ORDINALS[text] if text in _ORDINALS else int(text)


def _clock(match: "re.Match[str]") -> tuple[str, int]:
    """A time on the clock of 24 hours (``t``), or of 12 where nothing tells the half of the day (``h``)."""
    hours, minutes, half, hour, hour_half, word, late, past, on_the_hour, at_hour, part = match.groups()
    if past:
        minutes_past = {"half": 30, "quarter": 15}.get(late.lower()) or int(number_of(late))
        return "h", int(60 * number_of(past) + minutes_past) % 720
    if word:
        return "t", 720 if word.lower() == "noon" else 0
    named = on_the_hour or at_hour
    text, mark = hours or hour or str(number_of(named)), (half or hour_half or "").lower()
    if part:
        mark = "a" if part.lower() == "morning" else "p"
    if mark:
        return "t", 60 * (int(text) % 12 + (12 if mark == "p" else 0)) + int(minutes or 0)
    of_twelve = 1 <= int(text) <= 12 and text[0] != "0"
    return ("h" if of_twelve else "t"), (60 * int(text) + int(minutes or 0)) % (720 if of_twelve else 1440)


def _quantity(match: "re.Match[str]", text: str) -> Quantity | None:  # noqa: PLR0911
    if match["part"]:
        value, unit, end = _PARTS[match["part"].lower()], "%", match.end()
        value *= _SMALL[match["parts"].lower()] if match["parts"] else 1
        of = re.match(r" (?:of )?an? ([a-z]+)", text[end:])
        known = base_of(of[1].lower()) if of else None
        if known and of:
            return Quantity(value * known[1], known[0], match.start(), end + of.end())
        return Quantity(value * 100, unit, match.start(), end)
    if match["words"]:
        if match["words"].lower() in {"one", "a"} and not match["and_half"]:
            return None  # a pronoun as often as a number
        value = _words(match["words"].lower()) + (Fraction(1, 2) if match["and_half"] else 0)
    else:
        digits = (match["paid"] or match["digits"]).rstrip(",").replace(",", "")
        value = Fraction(digits) * _LARGE.get((match["paid_times"] or match["times"] or "").lower(), 1)
    end = match.end()
    if match["money"]:
        word = _MONEY[match["money"]]
        name, scale = base_of(word) or (word, 1)
        return Quantity(value * scale, name, match.start(), end)
    follows = _UNIT.match(text, end)
    word = follows[1].lower().lstrip("-") if follows else ""
    if follows and word in {"%", "percent"}:
        return Quantity(value, "%", match.start(), follows.end(1))
    if text[end:].lower().startswith(" per cent"):
        return Quantity(value, "%", match.start(), end + len(" per cent"))
    known = base_of(word)
    if known and follows:
        return Quantity(value * known[1], known[0], match.start(), follows.end(1))
    return Quantity(value, "" if word in _NO_UNIT else singular(word), match.start(), end)


def number_of(text: str) -> Fraction:
    """A number in digits or in words (``twenty-five``)."""
    return Fraction(text) if text.isdigit() else _words(text.lower())


def _words(text: str) -> Fraction:
    total, part = 0, 0
    for word in re.findall(r"[a-z]+", text):
        if word in _SMALL:
            part += _SMALL[word]
        elif word in {"hundred", "dozen"}:
            part = max(1, part) * _LARGE[word]
        elif word in _LARGE:
            total, part = total + max(1, part) * _LARGE[word], 0
    return Fraction(total + part)


def factor_of(left: str, right: str, left_money: bool = False, right_money: bool = False) -> Fraction | None:
    """What the left value is multiplied by to be in the right unit; 1 where the units do not differ or are not known.

    None when both are known and measure different things: such a pair is no claim of equality in numbers.
    """
    left, right = singular(left), singular(right)
    left = "dollar" if left_money and not left else left
    right = "dollar" if right_money and not _family(right) else right
    a, b = _family(left), _family(right)
    if a is None or b is None:
        return Fraction(12 if left == "dozen" else 1, 12 if right == "dozen" else 1)
    if a is not b:
        return Fraction(1)
    return a[left] / a[right]


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
