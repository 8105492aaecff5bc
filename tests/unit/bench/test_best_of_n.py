"""Ways to spend tokens on one problem, by hand."""

import pytest

from bench.best_of_n import Solved, Tried, compared, majority, number_in

TRIES = (Tried("4", 10), Tried("5", 10), Tried("4", 10))
PROGRAMS = (Tried("5", 5), Tried("5", 5), Tried("", 5))


@pytest.mark.parametrize(
    ("text", "number"),
    [("2 + 2 = 4\n#### 1,250.50", "1250.5"), ("it is 42.", "42"), ("#### $7.00", "7"), ("none", ""), ("-3", "-3")],
)
def test_the_number_of_an_answer(text, number):
    assert number_in(text) == number


def test_no_answer_has_no_vote():
    assert (majority(TRIES), majority(PROGRAMS), majority(PROGRAMS[2:])) == ("4", "5", "")


def test_what_equal_tokens_pay_for():
    found = compared([Solved("5", TRIES[0], TRIES, PROGRAMS, (1.0, 2.0, 3.0))])
    assert (found["majority, of 3"]["tokens"], found["vote of samples and programs, of 3"]["tokens"]) == (30, 45)
    assert [found[f"{name}, of 3"]["accuracy"] for name in ("majority", "majority of programs")] == [0, 1]
    equal = found["vote of samples and programs, at_equal_tokens"]
    # 20 tokens pay for one sample with its program, 30 for two of each
    assert {name: e["of"] for name, e in equal.items()} == {
        "budget of a majority of 2": 1,
        "budget of a majority of 3": 2,
    }
    # 4 5 5 5 beats 4 5 4
    assert equal["budget of a majority of 3"]["gain"][0] == 1.0
    assert found["vote that ends early"]["tokens"] == 30
