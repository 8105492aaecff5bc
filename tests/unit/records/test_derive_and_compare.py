"""Figures from raw samples, by hand."""

from typing import Any

import pytest
from msgspec.structs import replace

from harness.core.metric import metric_values
from harness.core.prediction import (
    Interval,
    Limit,
    MemoryPart,
    MemoryPrediction,
    PartKind,
    Prediction,
    SpeedPrediction,
    Verdict,
)
from harness.core.record import MachineFingerprint, MemoryUse, Phase, Record, Sample, Validity
from harness.core.scenario import Scenario
from harness.records.compare import compare
from harness.records.derive import disturbances, needed_count, summarise
from harness.show.state import State, figures_of


def sample(phase: Phase, label: str, duration_s: float, **fields: Any) -> Sample:
    given: dict[str, Any] = {"token_count": 10, "started_unix_s": 0.0} | fields
    return Sample(phase=phase, label=label, duration_s=duration_s, **given)


BUSY = Validity(doubts=("other processes used 52% of all CPU time: stop them",))


def record(*samples: Sample, prediction: Prediction | None = None, memory: MemoryUse | None = None) -> Record:
    return Record(
        schema_version=1,
        run_id="r",
        created="",
        harness_version="0",
        command=(),
        workload="generate",
        machine=MachineFingerprint(
            system="", kernel="", cpu_model="", core_count=1, ram_bytes=1, memory_limit_bytes=1, isa=(), python=""
        ),
        scenario=Scenario(prompt_tokens=10),
        outcome="ok",
        samples=samples,
        prediction=prediction,
        memory=memory,
    )


def test_medians_leave_out_warm_ups_and_disturbed_samples() -> None:
    found = summarise(
        record(
            sample("decode", "tg10", 100.0, warm_up=True),
            sample("decode", "tg10", 100.0, validity=BUSY),
            sample("decode", "tg10", 1.0, token_times_s=(0.1,) * 9 + (0.5,)),
            sample("decode", "tg10", 2.0),
            sample("decode", "tg10", 4.0),
        )
    ).test("decode")

    assert found is not None
    # Rates 10, 5 and 2.5 tokens/s
    assert (found.value, found.unit, found.doubted_value) == (5.0, "tokens/s", 0.1)
    assert (found.sample_count, found.disturbed_count) == (3, 1)


def test_latency_quantiles_are_over_all_tokens() -> None:
    (test,) = summarise(record(sample("decode", "tg", 1.0, token_times_s=tuple(n / 100 for n in range(101)))))

    # 0.00, 0.01 ... 1.00: the quantile q is q itself
    assert test.token_p99_s == pytest.approx(0.99)


@pytest.mark.parametrize(("asked", "needed"), [(1, 1), (2, 2), (3, 3), (5, 3), (6, 3), (7, 4), (10, 5), (21, 11)])
def test_how_many_clean_samples_are_enough(asked: int, needed: int) -> None:
    assert needed_count(asked) == needed


def test_a_run_that_stayed_disturbed_says_why() -> None:
    disturbed = record(
        *(sample("prefill", "pp10", 1.0) for _ in range(5)),
        *(sample("decode", "tg10", 1.0, validity=BUSY) for _ in range(9)),
        sample("decode", "tg10", 1.0),
    )

    (line,) = disturbances(disturbed, 5)

    assert line.startswith("tg10: only 1 of 10 samples undisturbed")
    assert "other processes used 52%" in line
    assert disturbances(record(*(sample("decode", "tg10", 1.0) for _ in range(3))), 5) == []


def prediction(roofline: float = 100.0) -> Prediction:
    def near(mid: float) -> Interval:
        return Interval(mid=mid, low=0.9 * mid, high=1.1 * mid)

    return Prediction(
        device="d",
        model="m",
        quant="q",
        api="cpu",
        memory=MemoryPrediction(
            parts=(MemoryPart(PartKind.WEIGHTS, anonymous_bytes=60, file_bytes=40),), peak_bytes=near(100)
        ),
        speed=SpeedPrediction(
            decode_tokens_per_s=near(6.0),
            prefill_tokens_per_s=near(10.0),
            ttft_cold_s=near(3.0),
            ttft_warm_s=near(1.0),
            load_cold_s=near(2.0),
            load_warm_s=near(0.5),
            active_bytes=1,
            kv_read_bytes=1,
            roofline_tokens_per_s=roofline,
            limits={},
        ),
        verdict=Verdict(word="fits", binding_limit=Limit.APP_MEMORY, needed_bytes=1, available_bytes=2),
    )


def test_comparison_row_by_row() -> None:
    run = record(
        sample("load", "load @ cold", 4.0, token_count=0),
        sample("first_token", "ttft10 @ cold", 4.0),
        sample("load", "load", 0.5, token_count=0),
        sample("prefill", "pp10", 1.0),
        sample("first_token", "ttft10", 1.25),
        sample("decode", "tg10", 2.0),
        prediction=prediction(),
        memory=MemoryUse(peak_rss_bytes=80, peak_anonymous_bytes=60),
    )

    found = compare(run)

    assert found is not None
    errors = {row.name: (row.measured, row.error_ratio, row.inside) for row in found.rows}
    assert errors == {
        "decode": (5.0, 0.2, False),  # 10 tokens in 2 s; (6 - 5) / 5; 5 < 0.9 x 6
        "prefill": (10.0, 0.0, True),
        "first token": (1.25, -0.2, False),  # (1 - 1.25) / 1.25; 1.25 > 1.1
        "first token, cold": (4.0, -0.25, False),
        "load": (0.5, 0.0, True),
        "load, cold": (4.0, -0.5, False),
        "peak memory": (80.0, 0.25, False),  # (100 - 80) / 80
        "anonymous memory": (60.0, 0.0, True),
    }
    assert found.notes == ()


def test_at_a_depth_a_cold_first_token_is_compared_with_nothing() -> None:
    run = record(
        sample("first_token", "ttft10 @ cold", 4.0),
        sample("first_token", "ttft10 @ d2048", 1.25),
        sample("decode", "tg10 @ d2048", 2.0),
        prediction=prediction(),
    )
    found = compare(replace(run, scenario=Scenario(prompt_tokens=10, depth_tokens=2048)))

    assert found is not None
    measured = {row.name: row.measured for row in found.rows}
    # the cold one waited for the file and had no depth before it: neither is what was predicted
    assert (measured["first token"], measured["first token, cold"]) == (1.25, None)
    assert measured["decode"] == 5.0


def test_of_several_sequences_a_cold_first_token_is_compared_with_nothing() -> None:
    run = record(
        sample("first_token", "ttft10 @ cold", 4.0),  # one prompt; four were predicted
        sample("first_token", "ttft10 b4", 1.25, token_count=40),
        prediction=prediction(),
    )
    found = compare(replace(run, scenario=Scenario(prompt_tokens=10, batch_count=4)))

    assert found is not None
    measured = {row.name: row.measured for row in found.rows}
    assert (measured["first token"], measured["first token, cold"]) == (1.25, None)


def test_a_cold_test_alone_is_no_answer_to_an_unlabelled_question() -> None:
    tests = summarise(record(sample("first_token", "ttft10 @ cold", 4.0)))

    assert tests.test("first_token") is None
    cold = tests.test("first_token", "ttft10 @ cold")
    assert cold is not None and cold.value == 4.0


@pytest.mark.parametrize(
    ("label", "depth_tokens", "values"),
    [
        ("tg10", 0, [5.0]),  # 10 tokens in 2 s
        ("tg10 @ d2048", 2048, [5.0]),
        ("tg10 @ d2048 b4", 2048, [5.0]),
        ("tg10 @ d2048", 20, []),
        ("tg10 @ d2048", 0, []),
        ("tg10 @ plain", 2048, []),
    ],
)
def test_a_run_at_a_depth_has_a_speed(label: str, depth_tokens: int, values: list[float]) -> None:
    run = replace(record(sample("decode", label, 2.0)), scenario=Scenario(depth_tokens=depth_tokens))

    assert metric_values(run, "decode_tokens_per_s") == values


def test_a_value_of_disturbed_samples_alone_is_shown_and_judged_by_nothing() -> None:
    busy = [sample("decode", "tg10", seconds, validity=BUSY) for seconds in (10.0, 20.0, 40.0)]

    run = record(*busy, sample("prefill", "pp10", 1.0), prediction=prediction())
    found = compare(run)

    assert found is not None
    decode = next(row for row in found.rows if row.name == "decode")
    assert (decode.measured, decode.sample_count, decode.doubted) == (0.5, 0, True)  # 10 tokens in 20 s
    assert (decode.error_ratio, decode.inside) == (None, None)
    figures = figures_of(run)
    assert (figures["decode"].state, figures["decode"].off) == (State.DISTURBED, "")
    assert (figures["prefill"].state, figures["prefill"].off) == (State.INSIDE, "0 %")


def test_a_measurement_above_its_ceiling_is_a_fault_of_the_profile() -> None:
    found = compare(record(sample("decode", "tg10", 2.0), prediction=prediction(roofline=4.0)))

    assert found is not None
    assert "above its ceiling" in found.notes[0]
    assert compare(record()) is None
