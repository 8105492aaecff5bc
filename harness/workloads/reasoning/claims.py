"""Find every equality that a text states in numbers, and judge it exactly.

A side is read outwards from its equals sign: operands and operators, unit words skipped after an operand, currency
signs dropped. What holds a variable, a function or an unreadable sign is no claim: silence is better than a guess.
"""

import re
from fractions import Fraction
from typing import Final, NamedTuple

from harness.workloads._language.figures import ENGLISH, NUMBER_WORDS, base_of, factor_of, number_of
from harness.workloads.reasoning.exact import NotArithmeticError, values

_SIGNS: Final = str.maketrans("×·⋅∗÷∕−–—⁄＝％", "****//---/=%")
_LATEX: Final = tuple((re.compile(pattern), spelling) for pattern, spelling in ENGLISH["arithmetic"]["latex"])
_ANNOTATION: Final = re.compile(r"<<[^<>]*>>")
_MARKER: Final = re.compile(r"^\s*(?:\(?\d{1,2}[.)]\s+|[-*•]\s+|(?:step|Step)\s+\d+\s*[:.]\s*)+")
_ROOT: Final = re.compile(
    r"(?:\\sqrt(?:\[(?P<nth>3)\])?\{(?P<a>\d{1,12})\}|√\s*\(?(?P<b>\d{1,12})\)?|\bsqrt\((?P<c>\d{1,12})\))"
)
_COMPOUND: Final = re.compile(
    r"\b(?P<a>\d+) (?P<large>hours?|feet|foot|pounds?|minutes?|days?|weeks?|years?),?(?: and)? (?P<b>\d+) "
    r"(?P<small>minutes?|inch(?:es)?|ounces?|seconds?|hours?|days?|months?)\b"
)
_NUMBER_WORD: Final = "|".join(NUMBER_WORDS)
_SAID: Final = rf"(?:\d+|(?:{_NUMBER_WORD})(?:-(?:{_NUMBER_WORD}))?)"
_SAID_SIGNS: Final = {"plus": "+", "minus": "-", "times": "*", "divided by": "/"}
_SAID_SIGN: Final = "|".join(_SAID_SIGNS)
_SPOKEN: Final = re.compile(
    rf"(?<![\w./-])(?<!plus |inus |imes |d by )(?P<left>{_SAID}(?: (?:{_SAID_SIGN}) {_SAID})+) "
    rf"(?:is|equals|makes|gives) (?P<right>{_SAID})(?![\w-]| (?:hundred|thousand|million))",
    re.I,
)
_CLOCK: Final = re.compile(
    r"\b(?P<hour>\d{1,2}):(?P<minute>\d\d)(?: ?(?P<half>[ap])\.?m\.?)? (?P<sign>[+-]) "
    r"(?:(?P<hours>\d+) (?:hours?|hrs?))?"
    r"(?:,? ?(?:and )?(?P<minutes>\d+) (?:minutes?|mins?))? = "
    r"(?P<to_hour>\d{1,2}):(?P<to_minute>\d\d)(?: ?(?P<to_half>[ap])\.?m\.?)?",
    re.I,
)
_TIMES: Final = re.compile(r"(?<=[\d)%])\s*[xX]\s*(?=[\d($.])|(?<=\d)\s+[xX]\s+(?=\$)")
_MIXED: Final = re.compile(r"(?<![\d./*^+\-])(?<![\d./*^+\-] )\b(\d+)\s+(\d+)/(\d+)\b(?![.\d])")
_OVER: Final = re.compile(r"(?<=[)\d%] / )(\d+/\d+)(?![./\d])")
_THOUSANDS: Final = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_OF: Final = re.compile(r"(%|\b\d+/\d+)\s+of\s+(?:the\s+)?(?=[$\d(])")
_TOKEN: Final = re.compile(r"\d+(?:\.\d+)?|\.\d+|[A-Za-z][A-Za-z'_]+(?:-[A-Za-z'_]+)*|[A-Za-z]|\*\*|[-+*/^()%=≈]|[^\s]")
_ARITHMETIC: Final = frozenset("+-*/^")
_EQUALS: Final = frozenset("=≈")
_DROPPED: Final = frozenset("$€£¥")
_BREAK: Final = frozenset({".", ",", ";", ":", "!", "?", "'", '"', "[", "]", "{", "}", "|", "&", "_", "`"})
_FUNCTIONS: Final = frozenset(ENGLISH["arithmetic"]["functions"].split())
_CLAUSE: Final = frozenset(ENGLISH["arithmetic"]["clauses"].split())
_LABEL: Final = frozenset(ENGLISH["arithmetic"]["labels"].split())
_WHOLE: Final = frozenset(ENGLISH["arithmetic"]["whole"].split())
_GLUED: Final = re.compile(r"(?<=\d)[a-z]{2}\b")
_UNIT_WORDS: Final = 3


class Claim(NamedTuple):
    """One stated equality.

    Attributes:
        text: Both sides as read.
        stated: The right side's value (its first reading).
        correct: What the left side comes to.
        is_right: Whether any readings of the two agree, allowing for stated rounding.
    """

    text: str
    stated: Fraction
    correct: Fraction
    is_right: bool


class _Side(NamedTuple):
    tokens: list[str]
    unit: str
    decimals: int
    has_percent: bool
    has_money: bool
    is_sum: bool


def claims(text: str) -> list[Claim]:
    """Every claim of a text, in order."""
    return [claim for line in text.split("\n") for claim in _of_line(line)]


def _of_line(line: str) -> list[Claim]:
    found = [claim for match in _CLOCK.finditer(line) if (claim := _clock(match)) is not None]
    tokens = tokenise(_CLOCK.sub(";", line))
    left: _Side | None = None
    for at, part in enumerate(tokens):
        if part not in _EQUALS:
            continue
        chained = left  # the side that ended here, when it reached this sign
        left = _read(tokens, at, -1) or chained
        right = _read(tokens, at, 1)
        if left is not None and right is not None and (left.is_sum or right.is_sum or chained is not None):
            is_whole = any(t.lower() in _WHOLE for t in tokens[at + 1 : at + 12])
            claim = _judge(left, right, loose=part == "≈" or _is_loose(tokens, at), is_whole=is_whole)
            if claim is not None:
                found.append(claim)
        left = right if right is not None and _reaches(tokens, at) else None
    return found


def tokenise(line: str) -> list[str]:
    """Signs and words of a line in one spelling."""
    line = _MARKER.sub("", _ANNOTATION.sub("", line).translate(_SIGNS))
    line = _ROOT.sub(_root, line)
    line = _COMPOUND.sub(_compound, line)
    if any(how in line for how in _SAID_SIGNS):
        line = _SPOKEN.sub(_spoken, line)
    line = _GLUED.sub(lambda m: m[0] if base_of(m[0]) else f" {m[0][0]} ", line)
    for _ in range(3):
        for pattern, spelling in _LATEX:
            line = pattern.sub(spelling, line)
    line = _THOUSANDS.sub("", line)
    line = _OF.sub(r"\1 * ", line)
    line = _TIMES.sub(" * ", line)
    line = _MIXED.sub(r"(\1+\2/\3)", line)
    line = _OVER.sub(r"(\1)", line)
    tokens = [("^" if t == "**" else t) for t in _TOKEN.findall(line)]
    return [t for t in tokens if t != "\\"]


def _root(match: "re.Match[str]") -> str:
    """An exact root in digits; one that is no whole number stays as it is, and makes its equality no claim."""
    number, power = int(match["a"] or match["b"] or match["c"]), 3 if match["nth"] else 2
    root = round(number ** (1 / power))
    return f"({root}*1)" if root**power == number else match[0]


def _compound(match: "re.Match[str]") -> str:
    """``3 hours 20 minutes`` as ``(3*60+20) minutes``; units of different kinds, or the smaller first, stay."""
    scale = factor_of(match["large"], match["small"])
    if scale is None or scale <= 1:
        return match[0]
    return f"({match['a']}*{scale}+{match['b']}) {match['small']}"


def _spoken(match: "re.Match[str]") -> str:
    """``five plus three is eight`` in digits and signs."""
    first, *rest = re.split(rf" ({_SAID_SIGN}) ", match["left"].lower())
    parts = [f"{_SAID_SIGNS[how]} {number_of(part)}" for how, part in zip(*[iter(rest)] * 2, strict=True)]
    return f"{number_of(first)} {' '.join(parts)} = {number_of(match['right'])}"


def _clock(match: "re.Match[str]") -> Claim | None:
    """A time, a span added or taken away, and the time that is said to come out; twelve hours apart is the same."""
    if not match["hours"] and not match["minutes"]:
        return None
    span = 60 * int(match["hours"] or 0) + int(match["minutes"] or 0)
    start = 60 * int(match["hour"]) + int(match["minute"])
    end = 60 * int(match["to_hour"]) + int(match["to_minute"])
    correct = start + (span if match["sign"] == "+" else -span)
    return Claim(match[0], Fraction(end), Fraction(correct % 1440), (correct - end) % 720 == 0)


def _read(tokens: list[str], equals: int, step: int) -> _Side | None:  # noqa: PLR0911, PLR0912, PLR0915  a state machine
    """The side that ends before ``equals`` (step -1) or begins after it (step 1); None when it is not readable.

    The left side must be readable to its very beginning; the right one ends where arithmetic ends.
    """
    is_left = step < 0
    opening, closing = ")(" if is_left else "()"
    at, depth, taken, unit, money = equals + step, 0, [], "", False
    expects_operand, skipped = True, 0
    while 0 <= at < len(tokens):
        part = tokens[at]
        if part in _DROPPED:
            money = True
        elif _is_number(part):
            if not expects_operand and not (is_left and depth):
                return None
            taken.append(part)
            expects_operand, skipped = False, 0
        elif part == opening:
            if not expects_operand:
                if not is_left and depth == 0 and not _arithmetic_bracket(tokens, at):
                    break
                taken.append("*")
            taken.append(part)
            depth, expects_operand = depth + 1, True
        elif part == closing:
            if depth == 0:
                break
            taken.append(part)
            depth, expects_operand = depth - 1, False
            if is_left and at and (_is_number(tokens[at - 1]) or tokens[at - 1] == ")"):
                taken.append("*")
                expects_operand = True
        elif part == "%" and (is_left or not expects_operand):
            taken.append(part)
        elif part in _ARITHMETIC:
            taken.append(part)
            expects_operand, skipped = True, 0
        elif not (part.isalpha() or "'" in part or "-" in part):
            # An index (a_4, 21_3) makes the number before it, or the word, something else than it looks.
            if "_" in part or (is_left and ((expects_operand and not taken) or part not in _BREAK | _EQUALS)):
                return None
            break
        elif is_left and (expects_operand or depth):
            skipped += 1
            if len(part) == 1 or skipped > _UNIT_WORDS or part.lower() in _FUNCTIONS:
                return None
            unit = unit or (part.lower() if not taken else "")
        elif is_left:
            if (len(part) == 1 and part not in {"a", "A", "I"}) or part.lower() in _FUNCTIONS:
                return None
            if part.lower() in _LABEL and len(taken) == 1:  # "heating up to 400 degrees = 20 + 8": a name, no value
                return None
            if at == 0 or tokens[at - 1] not in _ARITHMETIC:  # "+ his 1 teacher"
                break
        else:
            if expects_operand or depth or (len(part) == 1 and part not in {"a", "I"}):
                return None
            if part.lower() in _FUNCTIONS and not base_of(part.lower()):
                return None
            unit, after = part.lower(), at + 1
            while after < len(tokens) and tokens[after].isalpha() and after - at < _UNIT_WORDS:
                after += 1
            if after == len(tokens) or tokens[after] not in _ARITHMETIC or not _next_equals(tokens, after):
                break
            at = after - 1
        at += step
    if is_left and expects_operand and taken and taken[-1] != "-":
        return None
    while not is_left and taken and taken[-1] in _ARITHMETIC:
        taken.pop()
    if depth or not taken:
        return None
    taken = taken[::step]
    last = taken[-2] if taken[-1] == "%" and len(taken) > 1 else taken[-1]
    decimals = len(last.partition(".")[2]) if _is_number(last) else 0
    return _Side(taken, unit, decimals, "%" in taken, money, any(t in _ARITHMETIC for t in taken[1:]))


def _judge(left: _Side, right: _Side, *, loose: bool, is_whole: bool) -> Claim | None:
    """``loose``: about; ``is_whole``: the text speaks of a remainder, so a quotient may be the whole part of itself."""
    try:
        ours, theirs = values(left.tokens), values(right.tokens)
        if left.tokens[0] == "-" and len(left.tokens) > 1:  # a dash before the sum, not a sign
            ours |= values(left.tokens[1:])
    except NotArithmeticError:
        return None
    scale = factor_of(left.unit, right.unit, left.has_money, right.has_money)
    if scale is None:
        return None
    scales = {Fraction(1), scale}
    if left.has_percent != right.has_percent:
        scales.add(Fraction(1, 100) if right.has_percent else Fraction(100))
    agreed = any(_agrees(a * s, b, right, loose=loose) for a in ours for b in theirs for s in scales)
    agreed |= is_whole and "/" in left.tokens and any(a // 1 == b for a in ours for b in theirs)
    if not agreed and right.is_sum and _is_number(right.tokens[0]):
        # "10 + 5 = 15 - 3 = 12": people run on with the result, and mean no equality with the whole
        agreed = Fraction(right.tokens[0]) in ours
    text = f"{' '.join(left.tokens)} = {' '.join(right.tokens)}"
    return Claim(text, min(theirs), min(ours), agreed)


def _agrees(value: Fraction, stated: Fraction, side: _Side, *, loose: bool) -> bool:
    """Equal, or rounded as the stated digits allow.

    Two decimals or more may be the rounded value of more digits (money); one decimal may not, when the exact value
    would have been two: that is how slips look. A whole number is taken for a rounded one only when the
    value never ends (100 / 3 = 33), or when the text says "about".
    """
    if value == stated:
        return True
    if side.is_sum:
        return False
    gap = abs(value - stated)
    step = Fraction(1, 10**side.decimals) / (100 if side.has_percent else 1)
    if loose:
        return gap <= max(step, abs(value) / 50)
    endless = pow(10, value.denominator.bit_length(), value.denominator) != 0  # no power of ten is a multiple of it
    if side.decimals == 0:
        return endless and gap < 1
    if endless:
        return gap < step
    return side.decimals > 1 and gap <= step / 2


def _is_loose(tokens: list[str], at: int) -> bool:
    near = [t.lower() for t in tokens[at + 1 : at + 4]] + [t.lower() for t in tokens[max(0, at - 2) : at]]
    return any(t in {"about", "approximately", "roughly", "around", "nearly", "almost", "≈"} for t in near)


def _is_number(part: str) -> bool:
    return part[:1].isdigit() or (part[:1] == "." and part[1:].isdigit())


def _reaches(tokens: list[str], equals: int) -> bool:
    """Whether the side after ``equals`` runs up to the next equals sign, unit words aside."""
    words = 0
    for part in tokens[equals + 1 :]:
        if part in _EQUALS:
            return True
        is_word = part[:1].isalpha()
        words = words + 1 if is_word else 0
        if part in _BREAK or (is_word and (len(part) == 1 or words > _UNIT_WORDS or part.lower() in _CLAUSE)):
            return False
    return False


def _next_equals(tokens: list[str], start: int) -> bool:
    near = tokens[start : start + 12]
    return next((part in _EQUALS for part in near if part in _EQUALS or part in _BREAK), False)


def _arithmetic_bracket(tokens: list[str], start: int) -> bool:
    """Whether nothing but arithmetic stands between a bracket that opens and the next one that closes."""
    for part in tokens[start + 1 : start + 30]:
        if part == ")" or not (_is_number(part) or part in _ARITHMETIC or part in _DROPPED or part in "(%"):
            return part == ")"
    return False
