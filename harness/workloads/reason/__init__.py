"""Reasoning: wrong arithmetic, steps judged by the model's own odds, answers by vote, and contradictions.

``arithmetic``: equalities in the steps are judged in exact fractions. ``critic``: beside that a process reward,
the language model's own odds that each step is right. ``solve``: the model writes programs, which are worked
exactly, and the answer that most of them give is taken (self-consistency; Wang et al. 2022, arXiv:2203.11171).
``contradiction``: every pair of statements by an NLI model, which the user brings.
"""

import random
import re
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations
from typing import Any, Final, NamedTuple

import numpy as np

from harness.domain.result import Score
from harness.errors import RefusedError
from harness.workloads.parts import Parts
from harness.workloads.reason.arithmetic import first_wrong, wrong_equality
from harness.workloads.reason.programs import worked
from harness.workloads.scores import f1_score, mean_of, of_kind, resampled, share
from harness.workloads.system import Answers, Case, Context, Size, System

PROGRAM_TOKENS: Final = 160
_UNSURE: Final = 0.5
_PROGRAM: Final = (
    ("system", "Solve the maths problem with a short Python program: assignments with arithmetic only, one step a line. "
     "No functions, no comments, no text. The last line sets answer."),
    ("user", "Ida buys 3 boxes with 12 eggs each. She uses a quarter of the eggs and sells the rest at 0.5 dollars each. "
     "How much money does she get?"),
    ("assistant", "eggs = 3 * 12\nused = eggs / 4\nrest = eggs - used\nanswer = rest * 0.5"),
    ("user", "Tom is twice as old as Olaf. In 6 years Olaf will be 15. How old is Tom now?"),
    ("assistant", "olaf = 15 - 6\ntom = 2 * olaf\nanswer = tom"),
)  # fmt: skip
"""The turns in which a program is asked for."""


class Arithmetic(Case, tag="arithmetic"):
    """Steps, and the first wrong one counted from 0, -1 where all are right."""

    steps: list[str]
    label: int | None = None


class Critic(Case, tag="critic"):
    """A problem and the steps of a solution, and the first wrong one counted from 0, -1 where all are right."""

    needs = ("language",)
    problem: str
    steps: list[str]
    label: int | None = None


class Solve(Case, tag="solve"):
    """A problem and the number that answers it."""

    needs = ("language",)
    problem: str
    answer: str


class Contradiction(Case, tag="contradiction"):
    """Statements, and the two that contradict each other; [] for none."""

    needs = ("nli",)
    steps: list[str]
    contradiction: list[int] | None = None


class ReasonState(NamedTuple):
    """The parts, how many programs are written for each problem, and the seed."""

    parts: Parts
    program_count: int
    seed: int


class ReasonSystem(System):
    """Checks of chains of thought."""

    name = "reason"
    title = (
        "Reasoning: exact arithmetic, odds of each step, answers by vote; contradictions with an NLI model"
    )
    kinds = (Arithmetic, Critic, Solve, Contradiction)
    sizes = {
        "default": {"case_count": 60, "program_count": 1},
        "vote": {"case_count": 60, "program_count": 4},
    }

    def cases(self, size: Size, seed: int) -> Sequence[Any]:
        """Equalities in words, in every second case one of them wrong."""
        return [made_trace(1000 * seed + at) for at in range(size["case_count"])]

    def prepare(self, parts: Parts, size: Size, context: Context) -> ReasonState:
        """Nothing but the parts."""
        return ReasonState(parts, size["program_count"], context.seed)

    def step(self, state: ReasonState, case: Any) -> dict[str, Any]:
        """The first faulty step, -1 for none, and why; the answer by vote; the likeliest contradiction."""
        if isinstance(case, Solve):
            ends = programs(state, case.problem)
            (voted, _), *_ = [*Counter(ends).most_common(1), ("", 0)]
            return {"answers": ends, "voted": voted}
        if not case.steps:
            raise RefusedError("steps: found none, expected texts")
        if isinstance(case, Contradiction):
            pairs = combinations(case.steps, 2)
            return {"probability": max((state.parts.nli.contradicts(*pair) for pair in pairs), default=0.0)}
        wrong = first_wrong(case.steps)
        if isinstance(case, Arithmetic):
            return {"first_error": wrong, "why": wrong_equality(case.steps[wrong]) if wrong >= 0 else ""}
        doubted = -1
        for at in reversed(range(len(case.steps))):
            done = "\n".join(case.steps[: at + 1])
            ask = f"Problem: {case.problem}\n{done}\nIs the last step right? Answer Yes or No."
            if state.parts.language.options(ask)[0] < _UNSURE:
                doubted = at
        return {"first_error": wrong, "reward_error": doubted}

    def score(self, cases: Sequence[Any], answers: Answers) -> Sequence[Score]:
        """ProcessBench's F1 by exact arithmetic and by the odds, alarms of right traces, right answers by vote."""
        scores = []
        for kind, key, group in (
            (Arithmetic, "first_error", "arithmetic"),
            (Critic, "first_error", "critic, exact arithmetic alone"),
            (Critic, "reward_error", "critic"),
        ):
            rows = [row for row in of_kind(cases, answers, kind) if row[0].label is not None]
            if rows:
                first = [answer[key] for _, answer in rows]
                scores.append(located(group, [case for case, _ in rows], first))
                alarms = [answer[key] >= 0 for case, answer in rows if case.label < 0]
                scores.append(share("false_alarm_ratio", alarms, group).replace(more_is_better=False))
        solved = of_kind(cases, answers, Solve)
        if solved:
            voted = [is_number(answer["voted"], case.answer) for case, answer in solved]
            alone = [is_number([*answer["answers"], ""][0], case.answer) for case, answer in solved]
            scores.append(share("right_ratio", voted, "solve", {"one program": mean_of(alone)}))
        pairs = [row for row in of_kind(cases, answers, Contradiction) if row[0].contradiction is not None]
        if pairs:
            said = [answer["probability"] >= _UNSURE for _, answer in pairs]
            scores.append(f1_score(said, [bool(case.contradiction) for case, _ in pairs], "contradiction"))
        return scores


def programs(state: ReasonState, problem: str) -> list[str]:
    """What each program of the model gives at its end, exact; those that cannot be worked are left out."""
    ends = []
    for at in range(state.program_count):
        text = state.parts.language.write(
            [*_PROGRAM, ("user", problem)],
            PROGRAM_TOKENS,
            temperature=0.7 if at else 0.0,
            seed=1000 * state.seed + at,
            ends=lambda text: "```" in text,
        ).text
        try:
            results = worked(re.sub(r"^```\w*\n", "", text))
        except RefusedError:
            continue
        ends += [str(result) for result in results[-1:]]
    return ends


def is_number(text: str, wanted: str) -> bool:
    """Whether an exact result is the number wanted, which may have commas between thousands."""
    return bool(text) and Fraction(text) == Fraction(wanted.replace(",", ""))


def located(group: str, cases: Sequence[Any], first: Sequence[int]) -> Score:
    """ProcessBench's F1: the harmonic mean of errors found at the very step and of right traces accepted.

    Its null is the expected F1 of a step at random of the traces that were doubted here. Source: Zheng et al.
    2024, "ProcessBench" (arXiv:2412.06559).
    """
    is_wrong = np.array([case.label >= 0 for case in cases])
    doubts = np.array(first) >= 0
    hits = np.array([at == case.label for at, case in zip(first, cases, strict=True)])
    guessed = np.where(is_wrong, doubts / np.array([len(case.steps) for case in cases]), ~doubts)
    null = _process_f1(np.column_stack([is_wrong, guessed]))
    nulls = {"a step at random": null} if np.isfinite(null) else {}
    return resampled("f1", np.column_stack([is_wrong, hits]), _process_f1, group, nulls)


def _process_f1(rows: Any) -> float:
    """Of rows [n, (has an error, hit)]; NaN where one kind is missing."""
    wrong = rows[:, 0] > 0
    if wrong.all() or not wrong.any():
        return float("nan")
    found = rows[wrong, 1].mean()
    accepted = rows[~wrong, 1].mean()
    return float(2 * found * accepted / max(found + accepted, 1e-12))


def made_trace(seed: int) -> Arithmetic:
    """Right equalities in words, in every second one of the seeds with one of them made wrong."""
    rng = random.Random(seed)
    wrong = rng.randrange(5) if seed % 2 else -1
    steps = []
    for at in range(5):
        one = rng.randint(2, 99)
        two = rng.randint(2, 99)
        sides = (
            (one, "+", one + two),
            (one, "\u2212", one - two),
            (one, "x", one * two),
            (one * two, "\u00f7", one),
        )
        left, sign, result = rng.choice(sides)
        if at == wrong:
            result += rng.choice((-10, -1, 1, 10))
        steps.append(f"So we get {left:,} {sign} {two} = {result:,} in all.")
    return Arithmetic(steps=steps, label=wrong)


SYSTEM = ReasonSystem()
