"""A matrix goes on after failures, is found again, and tells how it ended; on the fake runtime, children and all."""

import shutil
from pathlib import Path

import pytest

from bench.tiny_gguf import synthesize_tiny
from harness.answer.resolve import resolve_model
from harness.core.device import Calibration, Device, TypeCost
from harness.core.errors import CouldNotRunError, Exit, RefusedError, UnknownNameError
from harness.core.paths import home_dir
from harness.core.prediction import PartKind
from harness.core.scenario import Scenario
from harness.hardware.cpus import CoreKind, Cores
from harness.hardware.devices import load_device
from harness.measure.child import Limits
from harness.measure.jobs.generate import plan
from harness.measure.jobs.soak import SoakJob
from harness.measure.jobs.soak import plan as plan_soak
from harness.measure.jobs.speculate import SpeculationJob
from harness.measure.pipeline import How, Pipeline, open_history
from harness.measure.protocol import GenerateJob
from harness.measure.runner import identify, new_record
from harness.measure.targets import target_named
from harness.measure.targets.bench import key_there
from harness.measure.targets.shell import ShellTarget
from harness.measure.targets.target_facts import facts
from harness.runtimes import llamacpp
from harness.runtimes.executable import FOLDER_VARIABLE
from harness.verbs import check as check_module
from harness.verbs import on_target
from harness.verbs import run as run_module
from harness.verbs.on_target import _measure
from harness.verbs.run import cells_of, exit_of, prediction_of, run_cells
from harness.verbs.speculate import speculate
from tests import fake

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


def test_what_is_resumed_is_put_into_the_folder(tmp_path: Path) -> None:
    cells = cells_of([model(tmp_path, "m")], "", BASE)
    (done,) = run_cells(cells, JOB)

    assert run_cells(cells, JOB, how=How(resume=True, folder=tmp_path / "out")) == [done]

    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"{done.run_id}.json"]


def test_another_engine_or_limit_or_number_of_loads_is_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells, how = cells_of([model(tmp_path, "m")], "", BASE), How(resume=True)

    def run_id(job: GenerateJob = JOB, memory_bytes: int | None = None) -> str:
        limits = Limits(memory_bytes=memory_bytes, use_group=False)
        return run_cells(cells, job, how=how._replace(limits=limits))[0].run_id

    first = run_id()
    assert run_id() == first
    several = JOB.replace(cold_loads=3)
    assert run_id(several) != first
    assert run_id(memory_bytes=4 << 30) not in {first, run_id(several)}
    monkeypatch.setattr(fake.RUNTIME, "package", lambda: "fake 2", raising=False)
    newer = run_id()
    assert newer != first
    assert run_id() == newer
    monkeypatch.setattr(fake.RUNTIME, "package", lambda: "fake 1")
    assert run_id() not in {first, newer}


def test_every_verb_asks_for_the_engine_before_it_reuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = synthesize_tiny(tmp_path / "t.gguf", "F16")
    monkeypatch.setattr(Pipeline, "measure", lambda _self, planned, **_: planned.key)
    soaked = SoakJob(path=str(tiny), scenario=BASE, runtime="fake")
    drafted = SpeculationJob(target=str(tiny), prompts=("a", "b"), draft="lookup")

    def keys(version: str) -> list[object]:
        monkeypatch.setattr(fake.RUNTIME, "package", lambda: version, raising=False)
        monkeypatch.setattr(llamacpp.RUNTIME, "missing", lambda: None)
        monkeypatch.setattr(llamacpp.RUNTIME, "package", lambda: version)
        return [plan_soak(soaked, identify(tiny, None)).key, speculate(drafted)]

    first = keys("1.0")
    assert keys("1.0") == first
    assert all(before != after for before, after in zip(first, keys("1.1"), strict=True))


def test_results_of_one_folder_of_programs_are_not_those_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = synthesize_tiny(tmp_path / "t.gguf", "F16")
    cells = cells_of([str(tiny)], "", BASE.replace(prompt_tokens=0))
    job = GenerateJob(runtime="executable", repetitions=1, cold_loads=0, patience_s=0.0)

    def tokens_per_s(folder: str, milliseconds: int) -> float:
        path = tmp_path / folder / "llama-bench"
        if not path.exists():
            path.parent.mkdir()
            row = f'{{"n_prompt": 0, "n_gen": 4, "samples_ns": [{milliseconds}000000], "build_commit": "c"}}'
            path.write_text(f"#!/bin/sh\necho '{row}'\n")
            path.chmod(0o755)
        monkeypatch.setenv(FOLDER_VARIABLE, str(path.parent))
        (record,) = run_cells(cells, job, how=How(resume=True))
        return record.samples[0].token_count / record.samples[0].duration_s

    assert tokens_per_s("a", 40) == pytest.approx(100)  # 4 tokens in 40 ms
    assert tokens_per_s("b", 20) == pytest.approx(200)
    assert tokens_per_s("a", 40) == pytest.approx(100)
    assert open_history().count() == 2


@pytest.mark.parametrize(("again", "resumed"), [(False, True), (True, False)])
def test_a_new_profile_predicts_a_run_of_its_own(
    again: bool, resumed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result of before has the prediction of the profile of before."""
    asked: list[How] = []
    monkeypatch.setattr(check_module, "probed", lambda *_, **__: load_device("laptop-ddr5"))
    monkeypatch.setattr(check_module, "engine_devices", lambda *_: ())
    monkeypatch.setattr(check_module, "run_cells", lambda *_, how, **__: asked.append(how) or [])
    monkeypatch.setattr(llamacpp.RUNTIME, "missing", lambda: None)
    monkeypatch.setattr(llamacpp.RUNTIME, "package", lambda: "llama-cpp-python 1")
    tiny = str(synthesize_tiny(tmp_path / "t.gguf", "F16"))

    check_module.check([tiny], "", BASE, GenerateJob(), How(resume=True), probe_again=again)

    assert [how.resume for how in asked] == [resumed]


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
    weights = next(part for part in prediction.memory.parts if part.kind is PartKind.WEIGHTS)
    assert (weights.file_bytes > 0) == is_mapped
    if not is_mapped:
        table = next(t for t in model.weights.tensors if t.name == "token_embd.weight")
        assert weights.anonymous_bytes == model.weights.tensor_bytes + table.size_bytes
    if not is_mapped:  # a record has it too, whatever becomes of the run
        tiny, job = (
            synthesize_tiny(tmp_path / "t.gguf", "F16"),
            JOB.replace(runtime=runtime, cold_loads=0, patience_s=0.0),
        )
        (record,) = run_cells(cells_of([str(tiny)], "", scenario), job, device=device)
        assert record.prediction is not None
        weights = [part for part in record.prediction.memory.parts if part.kind is PartKind.WEIGHTS]
        assert {part.file_bytes for part in weights} == {0}


def costs(runtime: str) -> Calibration:
    return Calibration(
        api="cpu", engine_version=runtime, thread_count=1, token_overhead_s=0.0, layer_overhead_s=0.0,
        kv_read_bytes_per_s=1e10, attention_flops_per_s=1e10,
        types=(TypeCost(type_name="F16", batch_seconds_per_byte=((1, 1e-10), (512, 1e-10))),),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("runtime", "are_kept", "expected"),
    [
        ("ik", {"ik", "llamacpp"}, "ik"),
        ("ik", {"llamacpp"}, "llamacpp"),
        ("llamacpp", {"ik", "llamacpp"}, "llamacpp"),
        ("executable", {"ik", "llamacpp"}, "llamacpp"),
        ("", {"ik", "llamacpp"}, "llamacpp"),
    ],
)
def test_a_runtime_is_predicted_from_its_own_costs(
    runtime: str, are_kept: set[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kept(*, api: str = "cpu", runtime: str = "llamacpp", **_: object) -> Calibration | None:
        return costs(runtime) if api == "cpu" and runtime in are_kept else None

    used: list[Device] = []
    monkeypatch.setattr("harness.measure.probe.calibrate.kept", kept)
    monkeypatch.setattr(run_module, "drifted", lambda device: device)
    monkeypatch.setattr(run_module, "predict", lambda case: used.append(case.device))
    mine = load_device("laptop-ddr5").replace(name="this-machine")
    model = resolve_model("smollm2-135m")

    now = run_module._at_this_moment(mine, BASE, runtime)
    assert now is not None
    for device in (now, mine):  # of a run, and of a race
        prediction_of(model, device, BASE, runtime=runtime)

    assert [[c.engine_version for c in device.calibrations] for device in used] == [[expected]] * 2


def test_a_target_is_probed_again_where_that_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []
    monkeypatch.setattr(check_module, "probe_on", lambda *given: done.append(given))
    monkeypatch.setattr(check_module, "run_on", lambda _on, _cells, _job, how, _programs: done.append(how.resume))
    there = ("ssh://board", tmp_path)
    for again in (False, True):
        check_module.check([model(tmp_path, "m")], "", BASE, JOB, How(resume=True), probe_again=again, on=there)
    assert done == [True, (*there, None), False]


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> None:
    """A target with 8 cores, whose measurements are made by nobody: each is its plan."""
    known = facts(target_named("local"))
    known = known._replace(cpu=known.cpu._replace(cores=Cores((CoreKind(1.0, tuple(range(8))),), 8)))
    monkeypatch.setattr(on_target, "facts", lambda _target: known)
    monkeypatch.setattr(on_target, "probe_on", lambda *_: (load_device("laptop-ddr5"), Path()))
    monkeypatch.setattr(on_target, "_measure", lambda _pipeline, planned, *_: planned)


@pytest.mark.usefixtures("board")
def test_a_target_runs_with_threads_of_its_own_in_the_context_of_its_test(tmp_path: Path) -> None:
    tiny = synthesize_tiny(tmp_path / "t.gguf", "F16")
    asked = Scenario(context_tokens=32768, prompt_tokens=512, new_tokens=128)
    cells = cells_of([str(tiny)], "", asked, thread_count=(0, 3))
    planned = on_target.run_on("local", cells, GenerateJob(), How(), tmp_path)[1]
    (bound,) = on_target.run_on("local", cells[:1], GenerateJob(), How(limits=Limits(cpus=(1, 2))), tmp_path)[1]

    assert [plan.scenario.thread_count for plan in (*planned, bound)] == [8, 3, 2]
    assert {plan.scenario.context_tokens for plan in planned} == {768}  # 512 and two more, in whole 256
    assert all(plan.job.scenario == plan.scenario for plan in planned)
    (cache,) = [part for part in planned[0].prediction.memory.parts if part.kind is PartKind.KV_CACHE]
    # 2 layers, 4 heads of 64; keys and values of 2 bytes; and what is noted of each cell
    assert cache.anonymous_bytes == pytest.approx(768 * 2 * 4 * 64 * 2 * 2, rel=0.05)


@pytest.mark.usefixtures("board")
def test_a_target_runs_one_sequence(tmp_path: Path) -> None:
    cells = cells_of([str(tmp_path / "m.gguf")], "", BASE.replace(batch_count=4))
    with pytest.raises(RefusedError, match="one sequence"):
        on_target.run_on("local", cells, GenerateJob(), How(), tmp_path)
