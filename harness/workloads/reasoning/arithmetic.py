"""Equalities in a step of a text, judged in exact fractions; what holds a letter or a word is left alone."""

import random
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Final

from harness.errors import RefusedError
from harness.workloads.reasoning.programs import value_of

_SIGNS: Final = (("\\times", "*"), ("\\cdot", "*"), ("\\div", "/"), ("×", "*"), ("·", "*"), ("÷", "/"), ("−", "-"), ("–", "-"), ("\\$", "$"))
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
        near = Fraction(1, 2) / 10**places if not _OPERATOR.search(right) else Fraction(0)
        scales = (1, 100, Fraction(1, 100)) if "%" in left + right else (1,)
        if not any(abs(worked * scale - stated) <= near for scale in scales):
            return f"{left.strip()} = {right.strip()} (correct: {float(worked):g})"
    return ""


def first_wrong(steps: Sequence[str]) -> int:
    """The first step with an equality that does not hold; -1 for none."""
    return next((at for at, step in enumerate(steps) if wrong_equality(step)), -1)


def _equalities(step: str) -> Iterator[tuple[str, str]]:
    """Neighbouring sides of each chain of equalities, the left one with an operator in it."""
    for old, new in _SIGNS:
        step = step.replace(old, new)
    step = _TIMES.sub(" * ", step)
    for match in _SIDES.finditer(step):
        before, after = step[: match.start()], step[match.end() :]
        sides = match[0].split("=")
        # A sign or a letter at an end belongs to something that is no plain number: ``x + 3 = 5``, ``f(2) = 3y``.
        starts_inside = re.match(r"\s*[+*/)]|\s+-\s|[^ ]", sides[0]) and re.search(r"[\w^\\}]\s*$", before)
        if starts_inside or re.search(r"(?:^|[^\w'])[^\W\d]\s*$", before):
            sides[0] = ""
        if re.match(r"[\w^\\{]", after) and not sides[-1].endswith(" ") or re.search(r"[-+*/(]\s*$", sides[-1]):
            sides[-1] = ""
        for left, right in zip(sides, sides[1:], strict=False):
            if _OPERATOR.search(left) and right.strip(" .,"):
                yield left, right.rstrip(" .,")


def _plain(side: str) -> str:
    return re.sub(r"(?<=\d),(?=\d{3})", "", side).replace("$", "").replace("%", "").strip(" ,").rstrip(".")


def made_trace(seed: int, step_count: int = 5) -> dict[str, object]:
    """A case: right equalities in words, in every second one of the seeds with one of them made wrong."""
    rng = random.Random(seed)
    wrong = rng.randrange(step_count) if seed % 2 else -1
    steps = []
    for at in range(step_count):
        a, b, places = rng.randint(2, 99), rng.randint(2, 99), rng.choice((0, 0, 2))
        left, right = Fraction(a * b, 10**places), Fraction(b)
        kind = rng.randrange(4)
        sign = (("+",), ("-", "−"), ("*", "×", "x"), ("/", "÷"))[kind]
        result = (left + right, left - right, left * right, left / right)[kind]
        if at == wrong:
            result += Fraction(rng.choice((-10, -2, -1, 1, 3, 10)), 10**places)
        shown = [f"{float(value):,.{places}f}" for value in (left, right, result)]
        steps.append(f"So we get {shown[0]} {rng.choice(sign)} {shown[1]} = {shown[2]} in all.")
    return {"kind": "arithmetic", "steps": steps, "label": wrong}
