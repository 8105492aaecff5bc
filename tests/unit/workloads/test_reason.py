"""Arithmetic in exact fractions, programs of a model, the first wrong step, and what the scores are compared with."""

import json
import re
import subprocess
import sys
from collections import Counter
from datetime import datetime, timedelta
from fractions import Fraction
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.errors import RefusedError
from harness.workloads.reason import SYSTEM, Arithmetic, Choose, Solve
from harness.workloads.reason.arithmetic import first_wrong, worked, wrong_equality

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "step",
    [
        "So 12 + 5 = 17 in all.",
        "3 x 7 = 21",
        "It costs $2,000 * 3 = $6,000.",
        "10 / 3 = 3.33 each",
        "48/2 = 24 = 20 + 4",
        "20% * 50 = 10",
        "x + 3 = 10",  # an unknown
        "2x = 6",
        "f(2) = 3",
        "1 + 2 = 3x",
        "5 apples * 3 = 15",  # a word is part of it
        "\\frac{1}{2} + 1 = 4",
        "2 + 2 = ",
        "9 ** 9 ** 9 = 1",
    ],
)
def test_what_holds_or_cannot_be_worked_is_no_error(step):
    assert wrong_equality(step) == ""


@pytest.mark.parametrize(
    ("step", "correct"),
    [
        ("12 + 5 = 18", "17"),
        ("3 × 7 = 22", "21"),
        ("1,000 − 1 = 1,000", "999"),
        ("10 / 4 = 3", "2.5"),
        ("2 * 3 * 4 = 25", "24"),
        ("48/2 = 24 = 20 + 5", ""),  # a chain: 24 = 20 + 5 has no operator on its left
        ("20 + 5 = 24 = 48/2", "25"),
        ("0.1 + 0.2 = 0.31", "0.3"),
    ],
)
def test_a_wrong_equality_is_named_with_what_is_right(step, correct):
    found = wrong_equality(step)
    assert (f"(correct: {correct})" in found) if correct else found == ""


@given(st.integers(-999, 999), st.integers(1, 999), st.sampled_from("+-*/"), st.integers(1, 50))
def test_right_results_are_accepted_and_others_found(a, b, sign, off):
    exact = {"+": Fraction(a + b), "-": Fraction(a - b), "*": Fraction(a * b), "/": Fraction(a, b)}[sign]
    if sign != "/":
        assert wrong_equality(f"We get {a} {sign} {b} = {exact}.") == ""
        assert wrong_equality(f"We get {a} {sign} {b} = {exact + off}.") != ""
    assert worked(f"value = {a} {sign} {b}") == exact


def test_the_first_wrong_step_counts_from_zero():
    assert first_wrong(["1 + 1 = 2", "2 + 2 = 5", "5 + 5 = 11"]) == 1
    assert first_wrong(["1 + 1 = 2"]) == -1


def test_a_program_is_worked_exactly():
    assert worked("a = 0.1 + 0.2\nb = a * 3\nb += 1") == Fraction(19, 10)


@pytest.mark.parametrize(
    "program",
    [
        "import os",
        "import os\na = 1",
        "",
        "a = open('x')",
        "a = b",
        "a = 1 / 0",
        "a = 2 ** 100000",
        "a = (1).real",
        "a = 'x' * 9",
        "a = " + "(" * 1900,
        "a = 1\n" * 2000,
    ],
)
def test_a_program_that_is_no_arithmetic_is_refused(program):
    with pytest.raises(RefusedError):
        worked(program)


def test_a_check_stands_beside_one_that_accepts_all():
    """Three wrong traces and two right ones; the check finds one and accepts both right ones."""
    labels, first = [1, 0, 3, -1, -1], [1, 2, -1, -1, -1]
    cases = [Arithmetic(steps=["s"] * 4, label=label) for label in labels]
    score, alarms = SYSTEM.score(cases, [{"first_error": at} for at in first])
    assert (score.name, score.value, score.nulls) == ("right_ratio", 0.6, {"all accepted": 0.4})
    assert (alarms.name, alarms.value, alarms.count) == ("false_alarm_ratio", 0, 2)


def test_right_answers_stand_beside_the_commonest_one():
    cases = [Solve(problem="p", answer=answer) for answer in ("1,000", "2", "2")]
    (score,) = SYSTEM.score(cases, [{"answer": "1000"}, {"answer": ""}, {"answer": "2"}])
    assert (score.name, score.value, score.nulls) == ("right_ratio", 2 / 3, {"the commonest answer": 2 / 3})


def test_simple_tasks_have_one_right_answer_and_are_the_same_by_their_seed():
    program = [sys.executable, str(ROOT / "docs/workloads/cases/simple_tasks.py"), "3", "12"]
    first, again = (subprocess.run(program, capture_output=True, text=True, check=True).stdout for _ in range(2))
    assert first == again
    rows = [json.loads(line) for line in first.splitlines()]
    assert Counter(row["task"] for row in rows) == dict.fromkeys(
        ("counting", "spatial", "temporal", "negation", "constraint"), 12
    )
    for row in rows:
        asked, right = row["question"], row["options"][row["right"]]
        assert len(set(row["options"])) == 4
        if row["task"] == "counting":  # by another way than the generator's
            letter, word = re.findall(r"'(\w+)'", asked)
            assert len(re.findall(letter, word)) == int(right)
        if row["task"] == "temporal":
            day, count, where = re.match(r"(\w+) is (\d) days (\w+)", asked).groups()
            held = datetime.strptime(f"2026 1 {day}", "%Y %W %A") + timedelta(
                int(count) * (-1 if where == "after" else 1)
            )
            assert held.strftime("%A") == right
        if row["task"] == "negation":
            assert right not in asked and all(one in asked for one in row["options"] if one != right)
        if row["task"] == "constraint":
            told = set(re.findall(r"(\w+) is not in the (\w+) room", asked))
            orders = [
                dict(zip(("Ada", "Bo", "Cem", "Dee"), order, strict=True))
                for order in permutations(("red", "blue", "green", "white"))
            ]
            held = [order for order in orders if not told & set(order.items())]
            assert [order[re.search(r"is (\w+)\?$", asked)[1]] for order in held] == [right]


def test_a_chosen_letter_stands_beside_the_commonest_place():
    cases = [Choose(question="q", options=["a", "b"], right=place, task="t") for place in (0, 0, 0, 1)]
    (score,) = SYSTEM.score(cases, [{"chosen": place} for place in (0, 1, 0, 1)])
    assert (score.group, score.value, score.nulls) == ("t", 0.75, {"the commonest place": 0.75})
