"""The gate under a model of noise: false alarms, detection, and builds that are slower on some tokens only."""

import re

import numpy as np
import pytest
from msgspec.structs import replace

from bench.gate_noise import BUDGET, QUIET, SHARED, Course, Machine, run_gate, share
from harness.core.budget import Budget
from harness.core.errors import CouldNotRunError, InputError
from harness.core.record import Record
from harness.core.stats.turns import turn_ends
from harness.gates.judge import Errors
from harness.gates.live import gate_in_turns, looks_within, plan_line, run_side

GATES = 60


def test_no_slowdown_on_a_shared_machine() -> None:
    found = [run_gate(SHARED, 0.0, seed) for seed in range(GATES)]
    assert share(found, "fail") <= 0.05
    assert share(found, "inconclusive") <= 0.10


def test_five_percent_within_sixteen_turns_on_a_shared_machine() -> None:
    found = [run_gate(SHARED, 0.05, seed, 16) for seed in range(GATES)]
    assert share(found, "fail") >= 0.8
    assert share(found, "pass") == 0.0


def test_on_the_limit_itself_it_seldom_decides() -> None:
    found = [run_gate(SHARED, 0.03, seed) for seed in range(GATES // 3)]
    assert share(found, "fail") <= 0.1
    assert share(found, "inconclusive") >= 0.75


@pytest.mark.parametrize("noise", [QUIET, SHARED], ids=["quiet", "shared"])
def test_a_build_that_slows_most_tokens_is_not_passed_by_the_others(noise) -> None:
    """65 of 100 tokens take 10 % longer: the median does, the fastest third does not."""
    found = []
    for seed in range(GATES // 2):
        machine = Machine(noise, seed)
        (judged,), new, _ = gate_in_turns([BUDGET], lambda m=machine: m.run(0.10, 0.65), lambda m=machine: m.run(0.0))
        found.append(Course(judged.answer, len(new)))
    assert share(found, "pass") <= 0.04


MARKED = SHARED._replace(busy_ratio=1.0, doubts=("other processes used 25 % of all CPU time",))
"""A neighbour that never leaves, and every run marked for it."""


@pytest.mark.parametrize(("slowdown", "right", "wrong"), [(0.0, "pass", "fail"), (0.05, "fail", "pass")])
def test_where_every_run_is_disturbed_the_spared_tokens_decide(slowdown: float, right: str, wrong: str) -> None:
    found = [run_gate(MARKED, slowdown, seed, 16) for seed in range(GATES)]
    assert share(found, right) >= 0.8
    assert share(found, wrong) <= 0.05


def test_an_answer_from_disturbed_runs_says_so() -> None:
    machine = Machine(MARKED, 0)
    (judged,), _, _ = gate_in_turns([BUDGET], lambda: machine.run(0.2), lambda: machine.run(0.0))
    assert judged.answer == "fail"
    assert "by the fastest 20% of each run's tokens" in judged.reason


def test_without_times_of_tokens_disturbed_runs_decide_nothing() -> None:
    machine = Machine(MARKED, 0)

    def run() -> Record:
        record = machine.run(0.2)
        return replace(record, samples=tuple(replace(s, token_times_s=()) for s in record.samples))

    budget = Budget(metric="decode_tokens_per_s", baseline_ratio=0.97)
    (judged,), _, _ = gate_in_turns([budget], run, run, max_turns=6)
    assert judged.answer == "inconclusive"
    assert "disturbed by: other processes used 25 % of all CPU time" in judged.reason


def test_the_plan_says_what_the_last_look_finds() -> None:
    line = plan_line(looks_within(24), 8)

    found = float(re.findall(r"([0-9.]+)% where turns differ by 3%", line)[0]) / 100
    draw = np.random.default_rng(3)
    errors = Errors.of(8, 1)
    ends = [turn_ends(np.log(1 - found) + draw.normal(0, 0.03, 24), 0.025, errors.alarm / 2) for _ in range(200)]
    assert 0.9 <= np.mean([high is not None and high < 0 for _, high in ends]) <= 1.0
    assert "looks after each turn from 6 on, at most 24" in line
    assert "can pass a build and never fail one: give --max-turns 13 or more" in plan_line(looks_within(8), 8)


def test_one_run_shown_again_is_no_turn() -> None:
    run = Machine(QUIET, 0).run(0.0)

    with pytest.raises(CouldNotRunError, match="run r1 came twice"):
        gate_in_turns([BUDGET], lambda: run, lambda: run)


def test_a_command_with_an_open_quote_or_no_word_cannot_be_run() -> None:
    with pytest.raises(InputError, match="found No closing quotation, expected a command as a shell reads it"):
        run_side("edge-harness run 'm --json", timeout_s=1)
    with pytest.raises(CouldNotRunError, match="an empty command cannot be run"):
        run_side(" ", timeout_s=1)
