"""Passes on a target without Python: which are run, with which lengths, and rows of what was timed there."""

from types import SimpleNamespace

import pytest

from harness.core.record import Sample
from harness.workloads.chain import GLUE, WHOLE, Op, RecordedPass, StepTime
from harness.workloads.measuring import RAN, Shape, law_there, rows_there, samples_of, shapes_of


def embed(tokens):
    return RecordedPass(part="encoder", op=Op.EMBED, tokens=tokens, seconds=0.02)


SEARCH = RecordedPass(part="store", op=Op.SEARCH, moved_bytes=9, seconds=0.1)
ASKED = [StepTime(step="ask", duration_s=1.0, passes=(embed(count), SEARCH)) for count in range(1, 102)]


ASK_51 = Shape(step="ask", part="encoder", op=Op.EMBED, tokens=51)
ASK_96 = ASK_51.replace(tokens=96)
PROBE_16 = ASK_51.replace(step="", tokens=16)
PROBE_96 = PROBE_16.replace(tokens=96)
WRITE_16 = Shape(step="", part="language", op=Op.WRITE, tokens=16)
SAMPLE = Sample(phase="prefill", label="pp51", token_count=51, duration_s=0.0, started_unix_s=0.0)
SECONDS = {ASK_51: 0.004, ASK_96: 0.007, PROBE_16: 0.002, PROBE_96: 0.010, WRITE_16: 0.16}


def test_the_median_and_the_95th_percentile_of_the_users_lines_are_run():
    # of 1 to 101 tokens; what no program there runs is left out; four lengths are probed
    shapes = shapes_of(ASKED, ["encoder"])
    assert [shape for shape in shapes if shape.step] == [ASK_51, ASK_96]
    assert [shape.tokens for shape in shapes if not shape.step] == [4, 16, 96, 384]
    # 0.02 s a pass here, of 51 tokens at the median
    assert shapes[ASK_51] == pytest.approx(0.02)


def test_written_tokens_are_one_text_and_judged_prompts_are_probed_as_read_ones():
    write = RecordedPass(part="language", op=Op.WRITE, depth=40, seconds=0.1)
    judge = RecordedPass(part="language", op=Op.JUDGE, tokens=30, seconds=0.3)
    steps = [
        StepTime(step="solve", duration_s=1.0, passes=(write.replace(tokens=count), judge, judge))
        for count in (8, 10, 10)
    ]
    shapes = [(one.step, one.op, one.tokens, one.depth) for one in shapes_of(steps, ["language"])]
    assert shapes[:2] == [("", Op.WRITE, 16, 0), ("solve", Op.WRITE, 10, 40)]
    assert shapes[2:] == [*(("", Op.READ, tokens, 0) for tokens in (4, 16, 96, 384)), ("solve", Op.JUDGE, 30, 0)]


def test_a_law_from_the_lengths_that_were_probed():
    law = law_there(SECONDS)
    # 1e-4 s a token, 0.4 ms before the first one
    assert law(embed(56)) == pytest.approx(0.006)
    assert law(RecordedPass(part="language", op=Op.WRITE, tokens=3)) == pytest.approx(0.03)
    assert law(RecordedPass(part="language", op=Op.READ, tokens=3)) is None


def test_what_no_program_there_runs_has_no_figure_and_no_other_machine_stands_in():
    rows = {row.op: row for row in rows_there(ASKED, SECONDS, "adb://x")}
    assert rows[RAN].p50_s == pytest.approx(0.004)
    assert rows[RAN].p95_s == pytest.approx(0.007)
    assert rows[RAN].predicted_p50_s == pytest.approx(0.0055)
    assert (rows[Op.SEARCH].p50_s, rows[Op.SEARCH].where) == (None, "adb://x")
    assert (rows[GLUE].p50_s, rows[GLUE].where) == (None, "adb://x")  # 1 s a step, of which passes took 0.12
    assert WHOLE not in rows


def test_each_repetition_is_a_sample_of_the_median_step_and_one_of_the_95th_percentile():
    def ran(*seconds):
        return SimpleNamespace(samples=[SAMPLE.replace(duration_s=each) for each in seconds])

    samples = list(samples_of(ASKED, {ASK_51: ran(0.004, 0.005), ASK_96: ran(0.007, 0.008), PROBE_16: ran(1.0)}))
    name = f"ask, {RAN}"  # its search is missing
    told = [(sample.label, round(sample.duration_s, 6)) for sample in samples]
    assert told == [(name, 0.004), (f"{name} @ p95", 0.007), (name, 0.005), (f"{name} @ p95", 0.008)]


def test_a_step_whose_every_pass_runs_there_is_whole_and_one_without_passes_has_a_row():
    whole = [StepTime(step="chat", duration_s=0.0202, passes=(embed(51),)), StepTime(step="forget", duration_s=0.1)]
    seconds = {ASK_51.replace(step="chat"): 0.004, PROBE_16: 0.002}
    rows = {(row.step, row.op): row.p50_s for row in rows_there(whole, seconds, "adb://x")}
    assert rows == {("chat", WHOLE): 0.004, ("chat", Op.EMBED): 0.004, ("forget", GLUE): None}
