"""Where does a chain of thought go wrong? Its faults, and the first faulty step."""

import re
from collections.abc import Sequence
from fractions import Fraction
from statistics import harmonic_mean
from typing import Final, NamedTuple

from harness.workloads.reasoning.algebra import algebra_faults
from harness.workloads.reasoning.claims import claims, tokenise
from harness.workloads.reasoning.contradictions import contradictions

_UNKNOWN: Final = re.compile(r"(?<![A-Za-z'])[B-HJ-Zb-z](?![A-Za-z'])")
_CONCLUDES: Final = re.compile(r"^\W*(?:so|therefore|thus|hence|this means|it follows|so we know|consequently)\b", re.I)


class Fault(NamedTuple):
    """One fault: ``arithmetic_error``, ``phantom_step`` or ``self_contradiction``, its step, and why."""

    kind: str
    step: int
    reason: str


class Analysis(NamedTuple):
    """Faults in order of steps, and the first faulty step (-1: none found)."""

    faults: tuple[Fault, ...]
    first_error: int


def analyse(steps: str | Sequence[str], problem: str = "") -> Analysis:
    """Analyse a trace: its steps, or one text with a step on each line. Numbers of the problem are no phantoms."""
    if isinstance(steps, str):
        steps = [line for line in steps.split("\n") if line.strip()]
    faults: list[Fault] = []
    clashes = {c.step: c for c in contradictions(steps)}
    unsolved = algebra_faults(steps)
    has_unknown = False  # an equation with one gives numbers that stand nowhere before
    for at, step in enumerate(steps):
        found = claims(step)
        wrong = [c for c in found if not c.is_right]
        has_unknown |= "=" in step and bool(_UNKNOWN.search(step))
        mine = [Fault("arithmetic_error", at, f"{c.text} (correct: {_show(c.correct)})") for c in wrong]
        concludes = not (found or has_unknown) and bool(_CONCLUDES.match(step))
        if concludes and _is_phantom(_numbers(step), _numbers("\n".join([problem, *steps[:at]]))):
            mine.append(Fault("phantom_step", at, "a conclusion from numbers that nothing before it gives"))
        if at in unsolved and not mine:
            mine.append(Fault("arithmetic_error", at, unsolved[at]))
        if at in clashes:
            first, _, kind, texts = clashes[at]
            mine.append(Fault("self_contradiction", at, f"{kind}: step {first} says {texts[0][:80]!r}"))
        faults += mine
    return Analysis(tuple(faults), min((f.step for f in faults), default=-1))


def f1(predicted: Sequence[int], labels: Sequence[int]) -> dict[str, float | None]:
    """ProcessBench's score: harmonic mean of errors located at the very step and of correct traces accepted.

    Of each trace the first faulty step, found and true, -1 for none. Not defined where one kind of trace is missing.
    Source: Zheng et al. 2024, "ProcessBench".
    """
    wrong = [p == y for p, y in zip(predicted, labels, strict=True) if y >= 0]
    right = [p == -1 for p, y in zip(predicted, labels, strict=True) if y < 0]
    located = sum(wrong) / len(wrong) if wrong else None
    accepted = sum(right) / len(right) if right else None
    both = None if located is None or accepted is None else harmonic_mean((located, accepted))
    return {"error_located": located, "correct_accepted": accepted, "f1": both}


def _numbers(text: str) -> set[Fraction]:
    tokens = (token for line in text.split("\n") for token in tokenise(line))
    return {Fraction(t) for t in tokens if re.fullmatch(r"\d+(\.\d+)?", t)}


def _is_phantom(numbers: set[Fraction], known: set[Fraction]) -> bool:
    """Whether a conclusion without arithmetic has numbers, one of them not small, that stand nowhere before."""
    return bool(numbers) and max(numbers) > 12 and known.isdisjoint(numbers)


def _show(value: Fraction) -> str:
    return str(value) if value.denominator == 1 else f"{float(value):.6g}"
