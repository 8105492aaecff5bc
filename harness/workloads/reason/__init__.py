"""Reasoning: wrong arithmetic, programs that are worked exactly, and questions with a few answers.

``arithmetic``: equalities in the steps are judged in exact fractions. ``solve``: the model writes a program, which
is worked exactly. ``choose``: the model names the letter of an answer; counting, directions, days, negations and
constraints are made by ``docs/workloads/cases/simple_tasks.py``. (The vote of four programs was measured, and got no
more right than one: it is not offered.)
"""

import random
import re
from collections import Counter
from fractions import Fraction
from string import ascii_uppercase
from typing import Annotated, Any

from msgspec import Meta

from harness.core.errors import RefusedError
from harness.core.model import Count
from harness.workloads.chain import Op, read, written
from harness.workloads.reason.arithmetic import first_wrong, worked, wrong_equality
from harness.workloads.scores import mean_of, of_kind, share
from harness.workloads.system import Answers, Cases, Context, Scores, Size, System, WorkloadCase

PROGRAM_TOKENS = 160
_PROGRAM = (
    ("system", "Solve the maths problem with a short Python program: assignments with arithmetic only, one step a line. "
     "No functions, no comments, no text. The last line sets answer."),
    ("user", "Ida buys 3 boxes with 12 eggs each. She uses a quarter of the eggs and sells the rest at 0.5 dollars each. "
     "How much money does she get?"),
    ("assistant", "eggs = 3 * 12\nused = eggs / 4\nrest = eggs - used\nanswer = rest * 0.5"),
    ("user", "Tom is twice as old as Olaf. In 6 years Olaf will be 15. How old is Tom now?"),
    ("assistant", "olaf = 15 - 6\ntom = 2 * olaf\nanswer = tom"),
)  # fmt: skip
"""The turns in which a program is asked for."""


class Arithmetic(WorkloadCase):
    """Steps, and the first wrong one counted from 0, -1 where all are right."""

    steps: list[str]
    label: int | None = None


class Solve(WorkloadCase):
    """A problem and the number that answers it."""

    needs = ("language",)
    problem: str
    answer: str


class Choose(WorkloadCase):
    """A question with its possible answers, the place of the right one from 0, and the task that it is of."""

    needs = ("language",)
    question: str
    options: Annotated[list[str], Meta(min_length=2, max_length=26)]
    right: Count
    task: str = "choose"


class ReasonSystem(System):
    """Checks of chains of thought."""

    name = "reason"
    title = "Reasoning: exact arithmetic, and programs worked exactly"
    kinds = (Arithmetic, Solve, Choose)
    usual = {"solve": [read(60, 200), written(50, 260)], "arithmetic": [], "choose": [read(60, op=Op.JUDGE)]}
    sizes = {"default": {"case_count": 60}}

    def cases(self, size: Size) -> Cases:
        """Equalities in words, in every second case one of them wrong."""
        return [made_trace(1000 + at) for at in range(size["case_count"])]

    def step(self, state: Context, case: Any) -> Any:
        """The first faulty step, -1 for none, and why; what a program of the model gives, empty for none."""
        if isinstance(case, Solve):
            turns = [*_PROGRAM, ("user", case.problem)]
            text, _ = state.parts.language.write(turns, PROGRAM_TOKENS, lambda text: "```" in text)
            try:
                return {"answer": str(worked(re.sub(r"^```\w*\n", "", text)))}
            except RefusedError:
                return {"answer": ""}
        if isinstance(case, Choose):
            letters = ascii_uppercase[: len(case.options)]
            listed = "\n".join(
                f"{letter}. {option}" for letter, option in zip(letters, case.options, strict=True)
            )
            asked = f"{case.question}\n{listed}\nAnswer with the letter."
            return {"chosen": int(state.parts.language.options(asked, letters).argmax())}
        wrong = first_wrong(case.steps)
        return {"first_error": wrong, "why": wrong_equality(case.steps[wrong]) if wrong >= 0 else ""}

    def score(self, cases: Cases, answers: Answers) -> Scores:
        """Traces judged rightly, alarms of right traces, right answers beside the commonest one."""
        scores = []
        rows = [row for row in of_kind(cases, answers, Arithmetic) if row[0].label is not None]
        if rows:
            accepted = mean_of([case.label < 0 for case, _ in rows])
            hits = [case.label == answer["first_error"] for case, answer in rows]
            scores.append(share("right_ratio", hits, "arithmetic", {"all accepted": accepted}))
            alarms = [answer["first_error"] >= 0 for case, answer in rows if case.label < 0]
            scores.append(share("false_alarm_ratio", alarms, "arithmetic").replace(more_is_better=False))
        solved = of_kind(cases, answers, Solve)
        if solved:
            wanted = [str(Fraction(case.answer.replace(",", ""))) for case, _ in solved]
            right = [answer["answer"] == exact for (_, answer), exact in zip(solved, wanted, strict=True)]
            ((_, count),) = Counter(case.answer for case, _ in solved).most_common(1)
            nulls = {"the commonest answer": count / len(solved)}
            scores.append(share("right_ratio", right, "solve", nulls))
        chosen = of_kind(cases, answers, Choose)
        for task in dict.fromkeys(case.task for case, _ in chosen):
            own = [(case.right, answer["chosen"]) for case, answer in chosen if case.task == task]
            ((_, count),) = Counter(right for right, _ in own).most_common(1)
            hits = [right == place for right, place in own]
            scores.append(share("right_ratio", hits, task, {"the commonest place": count / len(own)}))
        return scores


def made_trace(seed: int) -> Arithmetic:
    """Right equalities in words, in every second one of the seeds with one of them made wrong."""
    rng = random.Random(seed)
    wrong = rng.randrange(5) if seed % 2 else -1
    steps = []
    for at in range(5):
        one = rng.randint(2, 99)
        two = rng.randint(2, 99)
        result = one * two
        if at == wrong:
            result += rng.choice((-10, -1, 1, 10))
        steps.append(f"So we get {one} x {two} = {result:,} in all.")
    return Arithmetic(steps=steps, label=wrong)


SYSTEM = ReasonSystem()
