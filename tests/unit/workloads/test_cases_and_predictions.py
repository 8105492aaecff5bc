"""Cases and sizes as users write them, and the time of a step by hand sums."""

import json
from types import SimpleNamespace

import pytest

from harness.app import on_target
from harness.app.run import RunCell
from harness.catalog.devices import load_device
from harness.cli._progress import RunProgress
from harness.domain.record import Sample
from harness.domain.scenario import Scenario
from harness.errors import BadDataError, HarnessError, RefusedError, UnknownNameError
from harness.measure.pipeline import How
from harness.measure.protocol import GenerateJob
from harness.predict.co_resident import SPEC_SHARE
from harness.workloads.predict import (
    REFERENCE_SCORE,
    SERIAL_SHARE,
    Law,
    StepMachine,
    machine_there,
    predict_steps,
    single_core,
)
from harness.workloads.system import Column, Cost, PartPass, System, load, read_cases, size_of


class Sums(System):
    name = "sums"
    columns = {
        "text": Column(str, ""),
        "score": Column(float, "", needed=False),
        "many": Column(list, "", needed=False),
    }
    sizes = {"default": {"count": 10, "width": 2}, "large": {"count": 1000, "width": 2}}


SYSTEM = Sums()


def test_lines_of_json_become_cases(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text('{"text": "a", "score": 1}\n\n{"text": "b", "many": [1], "score": null}\n')
    assert read_cases(path, SYSTEM) == [{"text": "a", "score": 1}, {"text": "b", "many": [1]}]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{}", "own.jsonl:2, text: found nothing, expected this key"),
        ('{"text": 3}', "found 3, expected a text"),
        ('{"text": "a", "score": true}', "found True, expected a number"),
        ('{"text": "a", "more": 1}', "found an unknown key, expected one of: text, score, many"),
        ("[1]", "expected keys with values"),
        ("{", "no JSON"),
    ],
)
def test_a_line_that_is_no_case_is_named(tmp_path, line, words):
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps({"text": "a"}) + "\n" + line)
    with pytest.raises(BadDataError) as caught:
        read_cases(path, SYSTEM)
    assert all(part in str(caught.value) for part in words.split(", ", 1)), str(caught.value)


@pytest.mark.parametrize("name", ["reasoning", "memory_store", "grounded_vision", "sparse_autoencoder", "grounding_qa"])
def test_a_kind_that_a_system_does_not_know_is_refused_with_its_line(tmp_path, name):
    system = load(name)
    case = {"kind": "sing", "passage": "x", "steps": ["x"], "text": "x"}
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps({key: value for key, value in case.items() if key in system.columns}))
    with pytest.raises(BadDataError, match=r"own\.jsonl:1: kind: found 'sing', expected one of"):
        read_cases(path, system)


def test_no_case_and_another_format_are_refused(tmp_path):
    (tmp_path / "own.jsonl").write_text("\n")
    with pytest.raises(RefusedError, match="holds no case"):
        read_cases(tmp_path / "own.jsonl", SYSTEM)
    with pytest.raises(RefusedError, match=r"found \.csv, expected \.jsonl for sums"):
        read_cases(tmp_path / "own.csv", SYSTEM)


def test_sizes_by_name_and_by_parts():
    assert size_of(SYSTEM, "large") == {"count": 1000, "width": 2}
    assert size_of(SYSTEM, "count=7") == {"count": 7, "width": 2}
    with pytest.raises(UnknownNameError):
        size_of(SYSTEM, "huge")
    for bad in ("counts=7", "count=many", "count=7,width"):
        with pytest.raises(RefusedError, match="expected NAME=NUMBER"):
            size_of(SYSTEM, bad)


MACHINE = StepMachine(
    slowness=2.0,
    read_bytes_per_s=1e9,
    flops_per_s=1e10,
    laws={"language": lambda one: one.count * one.tokens * 0.01, "encoder": Law(base_s=0.001, token_s=0.0001).seconds},
    spread_ratio=1.5,
)


def test_a_step_is_the_sum_of_its_passes_the_longer_stream_and_scaled_glue():
    cost = Cost(
        passes=(
            PartPass(part="language", tokens=20),
            PartPass(part="language", count=5),
            PartPass(part="encoder", tokens=30, rows=2),
        ),
        flops_count=1e8,
        moved_bytes=5e7,
        resident_bytes=7,
        file_bytes=3,
        glue_s=0.002,
    )
    (step,) = predict_steps({"ask": cost}, MACHINE)
    # 0.2 + 0.05 s of language, 0.001 + 60 x 0.0001 of encoder, 0.05 s of reading (products take 0.01), 0.004 of glue
    assert step.parts_s == pytest.approx({"language": 0.25, "encoder": 0.007, "reading": 0.05, "glue": 0.004})
    assert step.latency_s.mid == pytest.approx(0.311)
    assert (step.latency_s.low, step.latency_s.high) == pytest.approx((0.311 / 1.5, 0.311 * 1.5))
    assert (step.limit, step.resident_bytes) == ("language", 10)


def test_a_part_that_nobody_timed_gets_no_number():
    (step,) = predict_steps({"x": Cost(passes=(PartPass(part="nli", tokens=9),), glue_s=1.0)}, MACHINE)
    assert (step.latency_s, step.limit) == (None, "")
    assert "nli passes cannot run there" in step.note


def test_on_a_target_only_what_ran_there_or_is_scaled_has_a_number(monkeypatch, tmp_path):
    from harness.workloads import run

    def sample(phase, tokens, seconds):
        return Sample(phase=phase, label="x", token_count=tokens, duration_s=seconds, started_unix_s=0.0)

    samples = (sample("prefill", 64, 0.64), sample("decode", 16, 0.8))
    asked = []

    def bench(on, cells, job, how, programs):
        asked.extend(cells)
        return load_device("iphone-16-pro"), [SimpleNamespace(samples=samples)]

    costs = {
        "answer": Cost(
            passes=(PartPass(part="language", tokens=60), PartPass(part="language", count=10)), glue_s=0.003
        ),
        "search": Cost(passes=(PartPass(part="encoder", tokens=12),)),
    }
    system = SimpleNamespace(
        name="x", parts=("language", "encoder"), sizes={"default": {}}, cost=lambda _parts, _size: costs
    )
    monkeypatch.setattr(run, "load", lambda _name: system)
    monkeypatch.setattr(on_target, "run_on", bench)
    monkeypatch.setattr(run, "SystemRun", SimpleNamespace)
    given = run.Given(language=tmp_path / "m.gguf")
    found = run.run_on("x", given, size="default", on="adb://", programs=tmp_path)
    answer, search = found.elsewhere["adb://"]
    # 60 tokens read at 10 ms, 10 written at 50 ms, and 3 ms of glue on a core of 3409 for one of 2600
    assert answer.latency_s.mid == pytest.approx(0.6 + 0.5 + 0.003 * REFERENCE_SCORE / 3409)
    assert search.latency_s is None
    assert (asked[0].scenario.prompt_tokens, asked[0].scenario.new_tokens) == (60, 16)
    assert "encoder passes cannot run there" in search.note
    assert answer.note.startswith("language passes by llama-bench there")


def test_a_model_on_a_target_is_one_part_of_what_its_caller_planned(tmp_path, monkeypatch):
    """Of three systems the second, whose model is one cell: its own run plans nothing anew."""
    monkeypatch.setattr(on_target, "target_named", lambda _on: None)
    monkeypatch.setattr(on_target, "facts", lambda _target: SimpleNamespace(title="box"))
    monkeypatch.setattr(on_target, "probe_on", lambda *_: (load_device("iphone-16-pro"), tmp_path))
    progress = RunProgress()
    progress.begin("the first system")
    progress.plan(2)
    cell = RunCell(str(tmp_path / "none.gguf"), "", Scenario())
    with pytest.raises(HarnessError):  # there is no such file
        on_target.run_on("ssh://box", [cell], GenerateJob(), How(listener=progress), tmp_path)
    assert progress.words().startswith("2 of 3")


def test_a_device_is_scaled_from_here_by_single_core_speed():
    phone = load_device("iphone-16-pro")
    assert single_core(phone) == 3409  # Macworld, 11 September 2024
    there = machine_there(phone, MACHINE, {"language": MACHINE.laws["language"]})
    slowness = REFERENCE_SCORE / 3409
    assert there.slowness == pytest.approx(slowness)
    assert there.laws["encoder"](PartPass(part="encoder", tokens=10)) == pytest.approx(0.002 * slowness / 2.0)
    assert there.laws["language"](PartPass(part="language", tokens=10)) == 0.1
    bandwidth = phone.pool("ram").bandwidth_bytes_per_s.value
    assert there.read_bytes_per_s == pytest.approx(SPEC_SHARE * SERIAL_SHARE * bandwidth)
