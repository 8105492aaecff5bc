"""Passes on a target without Python: which are run, with which lengths, and rows of what was timed there."""

import pytest

from harness.workloads.passes import WHOLE, Op, Pass, StepTime
from harness.workloads.target import law_there, probes_of, rows_there, shapes_of


def embed(tokens):
    return Pass(part="encoder", op=Op.EMBED, tokens=tokens, seconds=0.02)


SEARCH = Pass(part="store", op=Op.SEARCH, moved_bytes=9, seconds=0.1)
ASKED = [StepTime(step="ask", duration_s=1.0, passes=(embed(count), SEARCH)) for count in range(1, 102)]


def test_the_median_and_the_95th_percentile_of_the_users_lines_are_run():
    # of 1 to 101 tokens; what no program there runs is left out
    shapes = [(shape.step, shape.part, shape.tokens, shape.quantile) for shape in shapes_of(ASKED, ["encoder"])]
    assert shapes == [("ask", "encoder", 51, 50), ("ask", "encoder", 96, 95)]


def test_written_tokens_are_one_text_and_several_prompts_are_several_passes():
    write = Pass(part="language", op=Op.WRITE, tokens=1, depth=40, seconds=0.01)
    judge = Pass(part="language", op=Op.JUDGE, tokens=30, seconds=0.3)
    steps = [StepTime(step="solve", duration_s=1.0, passes=(*[write] * count, judge, judge)) for count in (8, 10, 12)]
    shapes = {(one.op, one.quantile): one for one in shapes_of(steps, ["language"])}
    written, judged = shapes[Op.WRITE, 50], shapes[Op.JUDGE, 50]
    assert (written.tokens, written.count, written.depth) == (10, 1, 40)
    assert (judged.tokens, judged.count) == (30, 2)


def test_a_law_from_the_lengths_that_were_probed():
    probed = {("", "encoder", Op.EMBED): {16: 0.002, 96: 0.010}, ("", "language", Op.WRITE): {16: 0.16}}
    law = law_there(probed)
    # 1e-4 s a token, 0.4 ms before the first one
    assert law(embed(56)) == pytest.approx(0.006)
    assert law(Pass(part="language", op=Op.WRITE, tokens=3)) == pytest.approx(0.03)
    assert law(Pass(part="language", op=Op.READ, tokens=3)) is None
    assert [shape.tokens for shape in probes_of(["encoder"])] == [4, 16, 96, 384]


def test_what_no_program_there_runs_has_no_figure_and_no_other_machine_stands_in():
    timed = {("ask", "encoder", Op.EMBED): {51: 0.004, 96: 0.008}}
    probed = {("", "encoder", Op.EMBED): {16: 0.002, 96: 0.010}}
    rows = {row.op: row for row in rows_there(ASKED, timed, probed, "adb://x")}
    assert rows[WHOLE].p50_s == pytest.approx(0.004)
    assert rows[WHOLE].p95_s == pytest.approx(0.008)
    assert rows[WHOLE].predicted_p50_s == pytest.approx(0.0055)
    assert (rows[Op.SEARCH].p50_s, rows[Op.SEARCH].where) == (None, "adb://x")
    assert "glue" not in rows
