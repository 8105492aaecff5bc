"""Ways to spend tokens on one problem, by hand."""

import pytest

from bench.best_of_n import Solved, Tried, best, compared, majority, number_in, weighted

TRIES = (Tried("4", -1.0, 10, 5), Tried("5", 2.0, 10, 5), Tried("4", -3.0, 10, 5), Tried("4", -3.0, 10, 5))


@pytest.mark.parametrize(
    ("text", "number"),
    [("2 + 2 = 4\n#### 1,250.50", "1250.5"), ("it is 42.", "42"), ("#### $7.00", "7"), ("none", ""), ("-3", "-3")],
)
def test_the_number_of_an_answer(text, number):
    assert number_in(text) == number


def test_the_three_ways_to_choose():
    assert (majority(TRIES), best(TRIES)) == ("4", "5")
    # 1 / (1 + e) + 2 / (1 + e**3) = 0.27 + 0.09 for 4; 1 / (1 + e**-2) = 0.88 for 5
    assert weighted(TRIES) == "5"


def test_equal_tokens_count_what_the_critic_reads():
    found = compared([Solved("5", TRIES[0], TRIES, (1.0, 2.0, 3.0))])
    assert (found["majority of 4"]["tokens"], found["best by the critic, of 4"]["tokens"]) == (40, 60)
    equal = found["best by the critic, at_equal_tokens"]
    assert {name: e["samples"] for name, e in equal.items()} == {
        "budget of a majority of 3": 2,  # 30 tokens pay for two samples and their reading
        "budget of a majority of 4": 2,
    }
    assert equal["budget of a majority of 3"]["gain"][0] == 1.0
    assert found["vote that ends early"]["tokens"] == 40
