"""Reasoning: wrong arithmetic, the first wrong step of a solution, answers by vote, and contradictions.

``arithmetic``: equalities in the steps are judged in exact fractions. ``critic``: the language model writes
programs for the problem, which are worked exactly; a solution that ends otherwise than all of them is doubted
from its first result that none of them has. Beside it stands a process reward: the model's own odds that each
step is right. ``solve``: the answer that most programs give (self-consistency; Wang et al. 2022,
arXiv:2203.11171). ``contradiction``: every pair of statements by an NLI model, which the user brings.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import numpy as np

from harness.domain.base import shipped_table
from harness.domain.foreign import json_in
from harness.domain.result import Score
from harness.errors import BadDataError, RefusedError
from harness.workloads.parts import Parts
from harness.workloads.passes import Chain, Op
from harness.workloads.reason.arithmetic import first_wrong, wrong_equality
from harness.workloads.reason.programs import doubted, number, worked
from harness.workloads.scores import f1_score, resampled, rows_of, share
from harness.workloads.system import Answers, Case, Context, Size, System

PROGRAM_TOKENS: Final = 160
_USUAL_TOKENS: Final = 60
_MOST_BYTES: Final = 64 << 20
_UNSURE: Final = 0.5


class Arithmetic(Case, tag="arithmetic"):
    """Steps, and the first wrong one counted from 0, -1 where all are right."""

    steps: list[str]
    label: int | None = None


class Critic(Case, tag="critic"):
    """A problem and the steps of a solution, and the first wrong one counted from 0, -1 where all are right."""

    problem: str
    steps: list[str]
    label: int | None = None


class Solve(Case, tag="solve"):
    """A problem and the number that answers it."""

    problem: str
    answer: str


class Contradiction(Case, tag="contradiction"):
    """Statements, and the two that contradict each other; [] for none."""

    steps: list[str]
    contradiction: list[int] | None = None


class ReasonState(NamedTuple):
    """The parts, how many programs are written for each problem, and the seed."""

    parts: Parts
    program_count: int
    has_reward: bool
    seed: int


class ReasonSystem(System):
    """Checks of chains of thought."""

    name = "reason"
    title = (
        "Reasoning: exact arithmetic, the first wrong step, answers by vote; contradictions with an NLI model"
    )
    kinds = (Arithmetic, Critic, Solve, Contradiction)
    options = ("language", "nli")
    sizes = {
        "default": {"case_count": 60, "program_count": 4, "reward": 0},
        "reward": {"case_count": 0, "program_count": 1, "reward": 1},
    }

    def cases(self, size: Size, seed: int) -> Sequence[Any]:
        """Equalities in words, in every second case one of them wrong."""
        return [made_trace(1000 * seed + at) for at in range(max(size["case_count"], 1))]

    def read_cases(self, path: Path) -> Sequence[Any]:
        """ProcessBench: a JSON list of ``problem``, ``steps``, ``label``; RefusedError for another file."""
        rows = json_in(path, "a list of ProcessBench", _MOST_BYTES)
        if path.suffix != ".json" or not isinstance(rows, list) or not rows:
            raise RefusedError(f"{path}: expected JSON lines (.jsonl) or a .json list of ProcessBench")
        for at, row in enumerate(rows):
            if not isinstance(row, dict) or not {"problem", "steps", "label"} <= row.keys():
                raise BadDataError(path, f"[{at}]", json.dumps(row)[:80], "problem, steps and label")
        return [Critic(problem=row["problem"], steps=row["steps"], label=row["label"]) for row in rows]

    def prepare(self, parts: Parts, size: Size, context: Context) -> ReasonState:
        """Nothing but the parts."""
        return ReasonState(parts, size["program_count"], bool(size["reward"]), context.seed)

    def step(self, state: ReasonState, case: Any) -> dict[str, Any]:
        """The first faulty step, -1 for none, and why; the answer by vote; the likeliest contradiction."""
        if isinstance(case, Contradiction):
            return contradicted(state.parts, case.steps)
        if isinstance(case, Solve):
            ends = [program[-1] for program in self._programs(state, case.problem)]
            voted = Counter(ends).most_common(1)
            return {"answers": [str(end) for end in ends], "voted": str(voted[0][0]) if voted else ""}
        if not case.steps:
            raise RefusedError("steps: found none, expected texts")
        wrong = first_wrong(case.steps)
        if isinstance(case, Arithmetic):
            return {"first_error": wrong, "why": wrong_equality(case.steps[wrong]) if wrong >= 0 else ""}
        programs = self._programs(state, case.problem)
        doubt = doubted(case.steps, case.problem, programs)
        found = [at for at in (wrong, doubt) if at >= 0]
        answer = {"first_error": min(found, default=-1), "exact_only": wrong, "program_count": len(programs)}
        if state.has_reward and state.parts.language is not None:
            chances = [float(state.parts.language.options(turns)[0]) for turns in reward_prompts(case)]
            answer["reward_error"] = next((at for at, chance in enumerate(chances) if chance < _UNSURE), -1)
        return answer

    def chain(self, case: Any, size: Size, chain: Chain) -> None:
        """Programs are written one after the other, of which only the first reads the problem."""
        if not isinstance(case, Critic | Solve):
            return
        for _ in range(size["program_count"]):
            chain.read(program_prompt(case.problem))
            chain.write(_USUAL_TOKENS)
        if size["reward"] and isinstance(case, Critic):
            for turns in reward_prompts(case):
                chain.read(turns, Op.JUDGE)

    def score(self, cases: Sequence[Any], answers: Answers) -> Sequence[Score]:
        """F1 of the first wrong step and of contradictions, right answers by vote; each beside its nulls."""
        scores = []
        for kind, name in ((Arithmetic, "arithmetic"), (Critic, "critic")):
            rows = [
                (case, answer) for case, answer in rows_of(cases, answers, kind) if case.label is not None
            ]
            if rows:
                first = [answer["first_error"] for _, answer in rows]
                scores.append(located(name, rows, first))
                scores.append(share("false_alarm_ratio", _alarms(rows, first), name))
            if rows and "reward_error" in rows[0][1]:
                scores.append(
                    located("critic by reward", rows, [answer["reward_error"] for _, answer in rows])
                )
        solved = rows_of(cases, answers, Solve)
        if solved:
            right = [case.answer for case, _ in solved]
            voted = [_is(answer["voted"], wanted) for (_, answer), wanted in zip(solved, right, strict=True)]
            first_of = [(answer["answers"] or [""])[0] for _, answer in solved]
            alone = float(np.mean([_is(text, wanted) for text, wanted in zip(first_of, right, strict=True)]))
            scores.append(share("right_ratio", voted, "solve", {"one program": alone}))
        pairs = [(c, a) for c, a in rows_of(cases, answers, Contradiction) if c.contradiction is not None]
        if pairs:
            true = [bool(case.contradiction) for case, _ in pairs]
            scores.append(
                f1_score([answer["probability"] >= 0.5 for _, answer in pairs], true, "contradiction")
            )
        return scores

    def _programs(self, state: ReasonState, problem: str) -> list[list[Fraction]]:
        if state.parts.language is None:
            raise RefusedError("a critic writes programs: name a language model with --model")
        programs = []
        for at in range(state.program_count):
            text = state.parts.language.write(
                program_prompt(problem),
                PROGRAM_TOKENS,
                temperature=0.7 if at else 0.0,
                seed=1000 * state.seed + at,
                ends=lambda text: "```" in text,
            ).text
            try:
                results = worked(re.sub(r"^```\w*\n", "", text))
            except RefusedError:
                continue
            if results:
                programs.append(results)
        return programs


def program_prompt(problem: str) -> list[tuple[str, str]]:
    """The turns in which a program is asked for, with two examples."""
    row = shipped_table("prompts.toml", "harness.workloads.reason")["program"]
    turns = [("system", row["instruction"])]
    for question, answer in row["examples"]:
        turns += [("user", question), ("assistant", answer)]
    return [*turns, ("user", problem)]


def reward_prompts(case: Critic) -> list[list[tuple[str, str]]]:
    """The turns in which each step is judged, after those before it."""
    prompts = []
    for at in range(len(case.steps)):
        done = "\n".join(case.steps[: at + 1])
        prompts.append(
            [("user", f"Problem: {case.problem}\n{done}\nIs the last step right? Answer Yes or No.")]
        )
    return prompts


def contradicted(parts: Parts, steps: Sequence[str]) -> dict[str, Any]:
    """The pair of statements that an NLI model finds likeliest to contradict each other."""
    if parts.nli is None:
        raise RefusedError(
            "contradiction: name an NLI model with --nli: no language model here beats always saying yes"
        )
    pairs = list(combinations(range(len(steps)), 2))
    if pairs:
        chances = parts.nli.chances([(steps[one], steps[two]) for one, two in pairs], "contradict")
    else:
        chances = []
    if pairs:
        top = int(np.argmax(chances))
    else:
        top = -1
    return {"probability": chances[top] if pairs else 0.0, "pair": list(pairs[top]) if pairs else []}


def located(group: str, rows: Sequence[tuple[Any, Any]], first: Sequence[int]) -> Score:
    """ProcessBench's F1: the harmonic mean of errors found at the very step and of right traces accepted.

    Nulls are their expected F1: ``a step at random`` of the traces that were doubted here, ``the longer
    half`` doubted. Source: Zheng et al. 2024, "ProcessBench" (arXiv:2412.06559).
    """
    labels = np.array([case.label for case, _ in rows])
    lengths = np.array([len(case.steps) for case, _ in rows])
    doubts = np.array(first) >= 0
    hits = (np.array(first) == labels).astype(np.float64)
    nulls: dict[str, float] = {}
    for name, rule in (("a step at random", doubts), ("the longer half", lengths > median(lengths))):
        guessed = np.where(labels >= 0, rule / lengths, ~rule)
        known = _process_f1(np.column_stack([labels >= 0, guessed]))
        if isfinite(known):
            nulls |= {name: known}
    return resampled("f1", np.column_stack([labels >= 0, hits]), _process_f1, group, nulls)


def _process_f1(rows: Any) -> float:
    """Of rows [n, (has an error, hit)]; NaN where one kind is missing."""
    wrong = rows[:, 0] > 0
    if wrong.all() or not wrong.any():
        return float("nan")
    one = rows[wrong, 1].mean()
    two = rows[~wrong, 1].mean()
    return float(2 * one * two / max(one + two, 1e-12))


def _alarms(rows: Sequence[tuple[Any, Any]], first: Sequence[int]) -> list[bool]:
    """Of each right trace whether a step of it was doubted."""
    return [at >= 0 for (case, _), at in zip(rows, first, strict=True) if case.label < 0]


def _is(text: str, wanted: str) -> bool:
    return bool(text) and Fraction(text) == number(wanted)


def made_trace(seed: int) -> Arithmetic:
    """Right equalities in words, in every second one of the seeds with one of them made wrong."""
    rng = random.Random(seed)
    if seed % 2:
        wrong = rng.randrange(5)
    else:
        wrong = -1
    steps = []
    for at in range(5):
        a = rng.randint(2, 99)
        b = rng.randint(2, 99)
        left, sign, result = rng.choice(
            ((a, "+", a + b), (a, "\u2212", a - b), (a, "x", a * b), (a * b, "\u00f7", a))
        )
        if at == wrong:
            result += rng.choice((-10, -2, -1, 1, 3, 10))
        steps.append(f"So we get {left:,} {sign} {b} = {result:,} in all.")
    return Arithmetic(steps=steps, label=wrong)


SYSTEM = ReasonSystem()
