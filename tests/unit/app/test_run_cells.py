"""A matrix goes on after failures, is found again, and tells how it ended; on the fake runtime, children and all."""

import shutil
from pathlib import Path

import pytest

from bench.tiny_gguf import synthesize_tiny
from harness.app.on_target import _measure
from harness.app.resolve import resolve_model
from harness.app.run import cells_of, exit_of, prediction_of, run_cells
from harness.app.tune import Setting, _outlook
from harness.catalog.devices import load_device
from harness.catalog.paths import home_dir
from harness.domain.scenario import Scenario
from harness.errors import CouldNotRunError, Exit, RefusedError, UnknownNameError
from harness.measure.child import Limits
from harness.measure.jobs.generate import plan
from harness.measure.pipeline import How, Pipeline, open_history
from harness.measure.protocol import GenerateJob
from harness.measure.runner import new_record
from harness.runtimes.executable import FOLDER_VARIABLE
from harness.targets import target_named
from harness.targets.bench import key_there
from harness.targets.facts import facts
from harness.targets.shell import ShellTarget

BASE = Scenario(context_tokens=128, prompt_tokens=16, new_tokens=4, thread_count=1)
JOB = GenerateJob(runtime="fake", repetitions=2)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EDGE_HARNESS_CACHE", str(tmp_path / "cache"))


def model(folder: Path, name: str, text: str = "{}") -> str:
    path = folder / f"{name}.json"
    path.write_text(text)
    return str(path)


def test_the_rest_goes_on_after_each_failure(tmp_path: Path) -> None:
    models = [
        model(tmp_path, "first"),
        model(tmp_path, "killed", '{"fault": "killed"}'),
        str(tmp_path / "absent.json"),
        model(tmp_path, "last"),
    ]

    records = run_cells(cells_of(models, "", BASE), JOB)

    assert [r.outcome for r in records] == ["ok", "crashed", "refused", "ok"]
    assert exit_of(records) == Exit.COULD_NOT_RUN
    assert "no such file" in records[2].detail
    history = open_history()
    assert {e.run_id for e in history.entries()} == {r.run_id for r in records}
    assert [history.get(r.run_id) for r in records] == records


def test_depths_and_threads_multiply(tmp_path: Path) -> None:
    cells = cells_of([model(tmp_path, "m")], "", BASE, depth_tokens=(0, 32), thread_count=(1, 2))

    assert [(c.scenario.depth_tokens, c.scenario.thread_count) for c in cells] == [(0, 1), (0, 2), (32, 1), (32, 2)]


def test_wrong_names_and_impossible_scenarios_stop_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError):
        cells_of([model(tmp_path, "m"), "no-such-model"], "", BASE)
    with pytest.raises(RefusedError, match="raise --context to at least 216"):  # 200 + 16
        cells_of([model(tmp_path, "m")], "", BASE, depth_tokens=(200,))


def test_a_resumed_matrix_measures_only_what_is_missing(tmp_path: Path) -> None:
    first, second = model(tmp_path, "first"), model(tmp_path, "second")
    (done,) = run_cells(cells_of([first], "", BASE), JOB)

    records = run_cells(cells_of([first, second], "", BASE), JOB, how=How(resume=True))

    assert records[0].run_id == done.run_id
    assert records[1].run_id != done.run_id
    assert open_history().count() == 2
    # Another scenario, or a changed file, is another cell.
    (again,) = run_cells(cells_of([first], "", BASE, depth_tokens=(8,)), JOB, how=How(resume=True))
    assert again.run_id != done.run_id


def test_what_broke_off_is_measured_again(tmp_path: Path) -> None:
    cells = cells_of([model(tmp_path, "killed", '{"fault": "killed"}')], "", BASE)
    (crashed,) = run_cells(cells, JOB)
    (again,) = run_cells(cells, JOB, how=How(resume=True))
    assert (crashed.outcome, again.outcome) == ("crashed", "crashed")
    assert again.run_id != crashed.run_id


def test_cpus_of_another_machine_bind_no_process_here(tmp_path: Path) -> None:
    """4095 is none of this machine's."""
    planned = plan(JOB.replace(path=model(tmp_path, "m"), scenario=BASE), None)
    with Pipeline(How(limits=Limits(cpus=(4095,)))) as pipeline:
        there = pipeline.measure(planned._replace(machine=pipeline.machine))
        here = pipeline.measure(planned)
    assert there.samples
    assert not here.samples


def test_a_resumed_run_asks_nothing_more_of_a_target(tmp_path: Path) -> None:
    """What was done before is taken from the history, also where the device sleeps or is gone by now."""
    (tmp_path / "llama-bench").write_bytes(Path(shutil.which("true") or "/bin/true").read_bytes())
    job = JOB.replace(path=model(tmp_path, "m"), scenario=BASE)
    planned = plan(job, None)
    gone, known = ShellTarget("gone", ("false",)), facts(target_named("local"))
    with Pipeline(How(resume=True, folder=tmp_path / "out")) as pipeline:
        with pytest.raises(CouldNotRunError, match="gone"):
            _measure(pipeline, planned, gone, known, tmp_path)
        record = new_record(scenario=BASE, workload="generate", outcome="ok", detail="")
        pipeline.keep(record, key=key_there(planned, known, tmp_path, ()))
        assert _measure(pipeline, planned, gone, known, tmp_path) == record
        with pytest.raises(CouldNotRunError, match="gone"):
            _measure(pipeline, planned._replace(job=job.replace(repetitions=3)), gone, known, tmp_path)


def test_a_result_is_not_lost_with_the_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home_dir() / "history.sqlite").write_bytes(b"torn" * 500)
    monkeypatch.chdir(tmp_path)

    (record,) = run_cells(cells_of([model(tmp_path, "m")], "", BASE), JOB)

    assert (tmp_path / f"edge-harness-{record.run_id}.json").is_file()


@pytest.mark.parametrize(
    ("runtime", "repack", "is_mapped"), [("llamacpp", True, True), ("ik", True, False), ("ik", False, True)]
)
def test_every_verb_predicts_a_runtime_as_it_loads(runtime: str, repack: bool, is_mapped: bool, tmp_path: Path) -> None:
    """ik maps no file where it rewrites weights, and keeps a second copy of a token table that is also the output."""
    device, model = load_device("laptop-ddr5"), resolve_model("smollm2-135m")
    scenario = BASE.replace(repack=repack)
    prediction = prediction_of(model, device, scenario, runtime=runtime)
    assert prediction is not None
    weights = next(part for part in prediction.memory.parts if part.name == "weights")
    assert (weights.file_bytes > 0) == is_mapped
    if not is_mapped:
        table = next(t for t in model.weights.tensors if t.name == "token_embd.weight")
        assert weights.anonymous_bytes == model.weights.tensor_bytes + table.size_bytes
    raced = _outlook(model, Setting(runtime=runtime, thread_count=1, repack=repack), scenario, device)
    assert raced is not None
    assert raced.memory_bytes == prediction.memory.peak_bytes.low

    if not is_mapped:  # a record has it too, whatever becomes of the run
        tiny, job = (
            synthesize_tiny(tmp_path / "t.gguf", "F16"),
            JOB.replace(runtime=runtime, cold_loads=0, patience_s=0.0),
        )
        (record,) = run_cells(cells_of([str(tiny)], "", scenario), job, device=device)
        assert record.prediction is not None
        assert {part.file_bytes for part in record.prediction.memory.parts if "weights" in part.name} == {0}


@pytest.mark.parametrize("limits", [Limits(memory_bytes=1 << 30), Limits(cpus=(0,))])
def test_a_started_server_takes_no_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: Limits) -> None:
    (tmp_path / "llama-server").write_text("#!/bin/sh\n")
    (tmp_path / "llama-server").chmod(0o755)
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    cells = cells_of([str(synthesize_tiny(tmp_path / "t.gguf", "F16"))], "", BASE)

    (record,) = run_cells(cells, GenerateJob(runtime="executable"), how=How(limits=limits))

    assert record.outcome == "refused"
    assert "do not bind a llama-server" in record.detail
