"""Passes: laws, lines between lengths, and rows of measured beside predicted."""

import pytest

from harness.core.scenario import Scenario
from harness.hardware.devices import load_device
from harness.models.names import load_model
from harness.models.weights import weights_of
from harness.speed.estimate import predict_speed
from harness.workloads.chain import GLUE, WHOLE, Meter, Op, RecordedPass, StepTime, fitted_seconds, law_of, rows_of

READ = RecordedPass(part="language", op=Op.READ, tokens=1)


def test_a_meter_keeps_passes_in_their_order_with_their_seconds():
    meter = Meter()
    with meter.timed(READ):
        pass
    (one,) = meter.drain()
    assert one.replace(seconds=None) == READ and one.seconds >= 0
    assert meter.drain() == ()


def test_what_is_written_without_a_break_is_one_pass():
    meter = Meter()
    write = RecordedPass(part="language", op=Op.WRITE, tokens=1, depth=7)
    for one in (READ, write, write.replace(depth=8), READ, write):
        with meter.timed(one):
            pass
    told = [(one.op, one.tokens, one.depth) for one in meter.drain()]
    assert told == [(Op.READ, 1, 0), (Op.WRITE, 2, 7), (Op.READ, 1, 0), (Op.WRITE, 1, 7)]


def test_passes_of_a_model_take_what_a_run_of_it_takes():
    weights = weights_of(load_model("smollm2-135m").shape, "Q4_1")
    device = load_device("raspberry-pi-5")
    scenario = Scenario(thread_count=4, api="cpu")
    law = law_of({"language": weights}, device, scenario)
    speed = predict_speed(weights, device, scenario.replace(prompt_tokens=64, new_tokens=1))
    read = RecordedPass(part="language", op=Op.READ, tokens=64)
    assert law(read) == pytest.approx(64 / speed.prefill_tokens_per_s.mid)
    write = law(RecordedPass(part="language", op=Op.WRITE, tokens=10, depth=64))
    later = predict_speed(weights, device, scenario.replace(prompt_tokens=1, depth_tokens=64, new_tokens=1))
    assert write == pytest.approx(10 / later.decode_tokens_per_s.mid)
    assert law(read.replace(op=Op.TRAIN)) == pytest.approx(3 * law(read))
    assert law(read.replace(op=Op.TAP, share=0.5)) == pytest.approx(0.5 * law(read))


def test_what_nobody_has_a_law_for_has_no_figure():
    law = law_of({}, load_device("raspberry-pi-5"), Scenario())
    assert law(RecordedPass(part="nli", op=Op.EMBED, tokens=9)) is None
    search = RecordedPass(part="store", op=Op.SEARCH, moved_bytes=1 << 30)
    assert law(search) > 0.02
    step = StepTime(step="ask", duration_s=1.0, passes=(search, RecordedPass(part="reader", op=Op.IMAGE, seconds=0.5)))
    whole = next(iter(rows_of([step], law)))
    assert (whole.op, whole.p50_s, whole.predicted_p50_s) == (WHOLE, 1.0, None)


@pytest.mark.parametrize(
    ("points", "tokens", "seconds"),
    [
        ({16: 2.0}, 8, 1.0),  # one point: in proportion
        ({16: 2.0, 96: 10.0}, 56, 6.0),
        ({16: 2.0, 96: 10.0}, 6, 1.0),
        ({4: 0.5, 16: 2.0, 96: 12.0}, 40, 5.0),
        ({4: 1.0, 16: 5.0}, 1, 0.277),  # no pass takes less than nothing: b alone, (4 + 16 / 5) / (16 + 16 * 16 / 25)
    ],
)
def test_lines_between_lengths_that_were_timed(points, tokens, seconds):
    assert fitted_seconds({(count, 0): took for count, took in points.items()}, tokens) == pytest.approx(
        seconds, rel=0.01
    )


def test_a_line_is_as_near_to_short_lengths_as_to_long_ones():
    """1 ms a token; the longest took a tenth more: by least squares that would be all in the shortest."""
    timed = {4: 0.004, 16: 0.016, 96: 0.096, 384: 0.4224}
    assert fitted_seconds({(count, 0): took for count, took in timed.items()}, 4) == pytest.approx(0.004, rel=0.1)


def test_what_a_cached_token_costs_is_told_by_passes_at_two_depths():
    # 1 ms, 2 ms a token, and 1 us for each token and cached token
    points = {(n, d): 0.001 + 0.002 * n + 1e-6 * n * d for n, d in ((4, 0), (96, 0), (96, 1024), (384, 512))}
    assert fitted_seconds(points, 50, 2000) == pytest.approx(0.001 + 0.1 + 0.1)


def test_a_step_stands_beside_its_passes_and_the_glue_that_was_measured():
    steps = [
        StepTime(step="ask", duration_s=2.5 + at, passes=(READ.replace(seconds=1.0), READ.replace(seconds=1.0 + at)))
        for at in (0, 1, 2)
    ]
    rows = {row.op: row for row in rows_of(steps, lambda _one: 1.5)}
    assert (rows[WHOLE].p50_s, rows[Op.READ].p50_s, rows[GLUE].p50_s) == (3.5, 3.0, 0.5)
    # two passes of 1.5 s by the law, and the glue as it was
    assert (rows[WHOLE].predicted_p50_s, rows[Op.READ].predicted_p50_s) == (3.5, 3.0)
    assert rows[WHOLE].error_ratio == 0 and rows[GLUE].error_ratio is None
    assert rows[WHOLE].p95_s == pytest.approx(4.4)
    assert rows[Op.READ].tokens == 2
    unknown = {row.op: row for row in rows_of(steps, lambda _one: None)}
    assert unknown[WHOLE].predicted_p50_s is None


def test_a_step_without_passes_is_not_predicted_by_its_own_glue():
    whole, glue = rows_of([StepTime(step="sum", duration_s=1.0)], lambda _one: 1.0)
    assert (whole.p50_s, whole.predicted_p50_s, glue.p50_s) == (1.0, None, 1.0)
