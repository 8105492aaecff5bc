"""Where does a chain of thought go wrong? Steps scored, the first fault located, credit assigned."""

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Final, NamedTuple

from harness.workloads.reasoning.claims import Claim, claims, tokenise

_CONCLUDES: Final = re.compile(r"^\W*(?:so|therefore|thus|hence|this means|it follows|so we know|consequently)\b", re.I)
_FACT: Final = re.compile(
    r"^\W*(?P<subject>[A-Za-z][\w' ]{0,50}?)\s+(?P<verb>is|are|was|were|has|have|had)\s+"
    r"(?P<no>not\s+|no\s+|n't\s+)?(?P<value>\$?\d[\d,.]*|[a-z]+)(?P<unit>\s+[a-z]+)?\W*$",
    re.I,
)
_CHANGE: Final = re.compile(
    r"\b(now|then|after|later|left|remaining|next|new|becomes?|instead|before|each|if|when)\b", re.I
)
_VAGUE: Final = frozenset(
    ["it", "this", "that", "there", "he", "she", "they", "we", "i", "answer", "total", "result", "which", "what"]
)


class Fault(NamedTuple):
    """One fault: ``arithmetic_error``, ``phantom_step`` or ``self_contradiction``, its step, and why."""

    kind: str
    step: int
    reason: str


class StepScore(NamedTuple):
    """Credit of one step: 1 checked and right, 0 faulty, None when nothing in it could be checked.

    ``inherits`` is True when it uses a number that a faulty step brought in: wrong, but not by itself.
    """

    step: int
    credit: float | None
    inherits: bool
    claims: tuple[Claim, ...]


class Analysis(NamedTuple):
    """Faults in order of steps, a score for each step, and the first faulty step (-1: none found)."""

    faults: tuple[Fault, ...]
    scores: tuple[StepScore, ...]
    first_error: int


def analyse(steps: str | Sequence[str], problem: str = "") -> Analysis:
    """Analyse a trace.

    Args:
        steps: The steps, or one text with a step on each line.
        problem: What was asked: its numbers are given, not phantoms.
    """
    if isinstance(steps, str):
        steps = [line for line in steps.split("\n") if line.strip()]
    faults: list[Fault] = []
    scores: list[StepScore] = []
    known = set(_numbers(problem))
    tainted: set[Fraction] = set()
    facts: dict[tuple[str, str], tuple[bool, str, int]] = {}
    for at, step in enumerate(steps):
        found = claims(step)
        wrong = [c for c in found if not c.is_right]
        numbers = _numbers(step)
        inherits = bool(tainted.intersection(numbers)) and not wrong
        mine = [Fault("arithmetic_error", at, f"{c.text} (correct: {_show(c.correct)})") for c in wrong]
        if _is_phantom(step, at, found, numbers, known, problem):
            mine.append(Fault("phantom_step", at, "a conclusion from numbers that nothing before it gives"))
        mine += _contradictions(step, at, facts)
        tainted.update(c.stated for c in wrong if c.stated not in known)
        known.update(numbers)
        faults += mine
        scores.append(StepScore(at, 0.0 if mine else 1.0 if found else None, inherits, tuple(found)))
    return Analysis(tuple(faults), tuple(scores), min((f.step for f in faults), default=-1))


def f1(predicted: Sequence[int], labels: Sequence[int]) -> dict[str, float | None]:
    """ProcessBench's score: harmonic mean of errors located at the very step and of correct traces accepted.

    Args:
        predicted: First faulty step found for each trace, -1 for none.
        labels: The true one.

    Source: Zheng et al. 2024, "ProcessBench".
    """
    wrong = [p == y for p, y in zip(predicted, labels, strict=True) if y >= 0]
    right = [p == -1 for p, y in zip(predicted, labels, strict=True) if y < 0]
    located = sum(wrong) / len(wrong) if wrong else None
    accepted = sum(right) / len(right) if right else None
    both = None  # not defined where one kind of trace is missing
    if located is not None and accepted is not None:
        both = 2 * located * accepted / (located + accepted) if located + accepted else 0.0
    return {"error_located": located, "correct_accepted": accepted, "f1": both}


def _is_phantom(
    step: str, at: int, found: list[Claim], numbers: list[Fraction], known: set[Fraction], problem: str
) -> bool:
    """A concluding step without arithmetic whose numbers stand nowhere before; the first one needs the problem."""
    if found or not _CONCLUDES.match(step) or (at == 0 and not problem and not numbers):
        return False
    return bool(numbers) and not any(n in known for n in numbers) and any(n > 12 for n in numbers)


def _contradictions(step: str, at: int, facts: dict[tuple[str, str], tuple[bool, str, int]]) -> list[Fault]:
    faults = []
    for sentence in re.split(r"(?<=[.;!?])\s+", step):
        match = _FACT.match(sentence.strip())
        if not match or _CHANGE.search(sentence) or "=" in sentence:
            continue
        subject = re.sub(r"^(the|a|an)\s+", "", match["subject"].lower()).strip()
        if subject.split()[-1] in _VAGUE or subject.split()[0] in _VAGUE:
            continue
        value = match["value"].lower().strip("$.,").replace(",", "")
        unit = (match["unit"] or "").strip().lower()
        is_number = value[:1].isdigit()
        key = (subject, f"{match['verb'].lower()} {unit}" if is_number else f"{match['verb'].lower()} {value}")
        says = (not match["no"], value if is_number else "", at)
        before = facts.setdefault(key, says)
        if before[2] != at and before[:2] != says[:2]:
            faults.append(Fault("self_contradiction", at, f"step {before[2]} says otherwise: {sentence.strip()[:80]}"))
    return faults


def _numbers(text: str) -> list[Fraction]:
    return [
        Fraction(t)
        for t in (tok for line in text.split("\n") for tok in tokenise(line))
        if re.fullmatch(r"\d+(\.\d+)?", t)
    ]


def _show(value: Fraction) -> str:
    return str(value) if value.denominator == 1 else f"{float(value):.6g}"
