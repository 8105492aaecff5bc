"""Passes on a target without Python: which are run, with which lengths, and the law of what was probed there."""

import pytest

from harness.catalog.names import load_model
from harness.predict.weights import weights_of
from harness.workloads.child import Declared
from harness.workloads.memory import SYSTEM
from harness.workloads.passes import Op, Pass
from harness.workloads.run import Plan
from harness.workloads.target import law_there, probes_of, shapes_of

WEIGHTS = weights_of(load_model("smollm2-135m").shape, "Q4_1")
PLAN = Plan(SYSTEM, {"entry_count": 0, "vectors": 1}, {}, {"encoder": WEIGHTS}, 1)


def embed(tokens):
    return Pass(part="encoder", op=Op.EMBED, tokens=tokens)


def test_the_median_and_the_95th_percentile_of_the_users_lines_are_run():
    search = Pass(part="store", op=Op.SEARCH, moved_bytes=9)
    declared = [Declared(step="ask", passes=(embed(count), search)) for count in range(1, 102)]
    shapes = shapes_of(declared, PLAN)
    # of 1 to 101 tokens; what no program there runs is left out
    assert [(shape.step, shape.one.part, shape.one.tokens) for shape in shapes] == [
        ("ask", "encoder", 51), ("ask", "encoder", 96),
    ]  # fmt: skip


def test_a_law_from_two_lengths_and_what_was_not_probed_by_the_profile():
    told = [
        {"part": "encoder", "op": "embed", "tokens": 16, "p50_s": 0.002},
        {"part": "encoder", "op": "embed", "tokens": 96, "p50_s": 0.010},
        {"part": "language", "op": "write", "tokens": 16, "p50_s": 0.16},
    ]
    law = law_there(told, lambda _one: 7.0)
    # 1e-4 s a token, 0.4 ms before the first one
    assert law(embed(56)) == pytest.approx(0.006)
    assert law(Pass(part="language", op=Op.WRITE, tokens=3)) == pytest.approx(0.03)
    assert law(Pass(part="language", op=Op.READ, tokens=3)) == 7.0
    assert [timed.one.tokens for timed in probes_of(PLAN)] == [16, 96]
