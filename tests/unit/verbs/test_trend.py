"""Differences carry an interval and an effect, and say no more than the samples do."""

import json
import os
import subprocess
import sys
from math import exp, log
from pathlib import Path

import msgspec
import pytest

from harness.core.record import Record
from harness.core.result import Generation
from harness.records.store import load, save
from harness.verbs.trend import MetricChange, differences, not_alike, trends

REAL = Path(__file__).parents[2] / "records" / "v2-smollm2-135m.json"


def scaled(run_id: str, factor: float, created: str = "2026-01-02T00:00:00+00:00"):
    """The real record with every duration multiplied."""
    record = load(REAL)
    samples = tuple(msgspec.structs.replace(s, duration_s=s.duration_s * factor) for s in record.samples)
    return msgspec.structs.replace(record, run_id=run_id, created=created, samples=samples)


def difference(before: Record, after: Record, metric: str) -> MetricChange | None:
    return next((change for change in differences(before, after) if change.metric == metric), None)


def test_same_samples_show_no_difference() -> None:
    change = difference(load(REAL), scaled("b", 1.0), "decode_tokens_per_s")

    assert change.ratio == pytest.approx(1.0)
    assert change.word == "no difference shown"
    assert change.low < 1 < change.high


@pytest.mark.parametrize(("factor", "word"), [(2.0, "worse"), (0.5, "better")])
def test_twice_the_time_is_half_the_speed(factor: float, word: str) -> None:
    change = difference(load(REAL), scaled("b", factor), "decode_tokens_per_s")

    # Every sample takes `factor` times as long, so that the ratio of speeds is 1 / factor exactly.
    assert change.ratio == pytest.approx(1 / factor)
    assert change.word == word
    assert change.low < 1 / factor < change.high


def test_a_larger_speedup_is_better() -> None:
    record = load(REAL.with_name("v2-speculate.json"))
    slow, fast = ((1.0, 1.1, 1.2), (2.0, 2.2, 2.4))
    sides = [msgspec.structs.replace(record.result, ratios=ratios) for ratios in (slow, fast)]
    before, after = (msgspec.structs.replace(record, result=result) for result in sides)

    change = difference(before, after, "speedup_ratio")

    assert change.ratio == pytest.approx(2.0)
    assert change.word == "better"


def test_one_value_has_the_interval_of_what_runs_were_seen_to_differ_by() -> None:
    change = difference(load(REAL), scaled("b", 1.0), "peak_memory_bytes")

    half = 1.959964 * 2**0.5 * 0.003
    assert (change.low, change.high) == pytest.approx((exp(-half), exp(half)))
    assert change.word == "no difference shown"


def test_a_file_s_size_is_exact() -> None:
    """Runs do not differ in it: no interval, and any other size is a difference."""
    record = load(REAL)
    assert record.model is not None
    model = msgspec.structs.replace(record.model, size_bytes=2 * record.model.size_bytes)
    same = difference(record, record, "file_bytes")
    larger = difference(record, msgspec.structs.replace(record, model=model), "file_bytes")

    assert (same.low, same.high, same.word) == (None, None, "no difference shown")
    assert larger.ratio == pytest.approx(2.0)
    assert (larger.low, larger.high, larger.word) == (None, None, "worse")


@pytest.mark.parametrize(("ratio", "word"), [(1.0004, "no difference shown"), (1.01, "worse"), (0.99, "better")])
def test_kernels_that_round_otherwise_are_not_worse(ratio: float, word: str) -> None:
    """Perplexity moves by up to .2 % where kernels of the same weights round activations otherwise."""
    record = load(REAL)
    sides = []
    for nll in (2.0, 2.0 + log(ratio)):
        result = msgspec.structs.replace(record.result or Generation(repetitions=1), token_nll=(nll,) * 4)
        sides.append(msgspec.structs.replace(record, result=result))

    assert difference(*sides, "perplexity").word == word


def test_what_is_not_alike_is_said() -> None:
    record = load(REAL)
    other = msgspec.structs.replace(record, scenario=msgspec.structs.replace(record.scenario, kv_type="Q8_0"))

    assert not_alike(record, record) == []
    assert not_alike(record, other) == ["kv_type: F16 before, Q8_0 after"]
    off = msgspec.structs.replace(record, scenario=msgspec.structs.replace(record.scenario, flash_attention=False))
    on = msgspec.structs.replace(off, scenario=msgspec.structs.replace(off.scenario, flash_attention=True))
    assert not_alike(on, off) == ["flash_attention: True before, False after"]
    assert {c.metric for c in differences(record, other)} >= {"decode_tokens_per_s", "load_s"}


def test_trend_is_in_order_and_apart_by_scenario() -> None:
    runs = [scaled("c", 1.5, "2026-01-03"), scaled("a", 1.0, "2026-01-01"), scaled("b", 1.0, "2026-01-02")]
    other = scaled("d", 1.0)
    other = msgspec.structs.replace(other, scenario=msgspec.structs.replace(other.scenario, depth_tokens=7))

    (one, two) = sorted(trends([*runs, other], "decode_tokens_per_s"), key=lambda t: -len(t.points))

    assert [p.run_id for p in one.points] == ["a", "b", "c"]
    assert one.step.ratio == pytest.approx(1 / 1.5)
    assert two.step is None


def test_runtimes_are_courses_of_their_own() -> None:
    plain, other = scaled("a", 1.0, "2026-01-01"), scaled("b", 0.5, "2026-01-02")
    other = msgspec.structs.replace(other, runtime="ik")

    courses = trends([plain, other], "decode_tokens_per_s")

    assert [len(course.points) for course in courses] == [1, 1]
    assert len({course.name for course in courses}) == 2
    assert not_alike(plain, other) == ["runtime: llamacpp before, ik after"]


def test_verbs_print_intervals(tmp_path) -> None:
    from harness.records.history import History

    history = History(tmp_path / "history.sqlite")
    for record in (scaled("a", 1.0, "2026-01-01"), scaled("b", 2.0, "2026-01-02")):
        history.extend([record])
        save(record, tmp_path / f"{record.run_id}.json")
    environment = {**os.environ, "EDGE_HARNESS_HOME": str(tmp_path)}

    def verb(*arguments: str) -> str:
        command = [sys.executable, "-m", "harness", *arguments, "--json"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout

    (trend,) = json.loads(verb("history", "--trend", "decode_tokens_per_s"))["items"]
    compared = json.loads(verb("history", str(tmp_path / "a.json"), str(tmp_path / "b.json")))

    assert trend["step"]["ratio"] == pytest.approx(0.5)
    decode = next(c for c in compared["differences"][0] if c["metric"] == "decode_tokens_per_s")
    assert decode["low"] < 0.5 < decode["high"]
