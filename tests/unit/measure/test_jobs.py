"""Each job goes to its child as JSON, and arrives as what it was: by the annotation of the entry's first parameter."""

import contextlib
import inspect
import json
import pkgutil
from collections.abc import Callable
from importlib import import_module
from typing import Any

import msgspec
import numpy as np
import pytest

from harness.core.placement import Placement
from harness.core.ports import Emit
from harness.core.scenario import Scenario
from harness.measure import jobs, protocol
from harness.measure.child_process import _typed
from harness.measure.jobs import bench_program as executable
from harness.measure.jobs import load, score, served, soak, speculate, stream
from harness.measure.probe import calibrate_child as _calibrate_child
from harness.runtimes.llamacpp import LlamaCpp
from harness.runtimes.server.stream import Patience

SCENARIO = Scenario(context_tokens=256, api="vulkan", placement=Placement(gpu_layers=3, kv_on_gpu=False))
URL = "http://127.0.0.1:1"
PATIENCE = Patience(answer_s=5.0, silence_s=2.0)
GENERATE = protocol.GenerateJob(path="a.gguf", scenario=SCENARIO, patience_s=1.5)
SERVED = served.ServedJob(url=URL, scenario=SCENARIO, model="m", patience=PATIENCE)
SENT: list[tuple[Callable[..., None], msgspec.Struct]] = [
    (protocol.run_generate, GENERATE),
    (executable.run_executable, GENERATE),
    (served.run_served, SERVED),
    (load.run_load, load.LoadJob(url=URL, levels=(1.0, 2.5), prompt_tokens=(8, 9), limits_s={"ttft": 1e-4},
                                 patience=PATIENCE)),
    (score.run_quality, score.QualityJob(model="a.gguf", text="t.txt", reference="b.gguf", chunk_count=0)),
    (score.run_text, score.TextJob(runtime="llamacpp", scenario=SCENARIO, path="a.gguf")),
    (soak.run, soak.SoakJob(path="a.gguf", scenario=SCENARIO, celsius_max=60.0)),
    (speculate.run, speculate.SpeculationJob(target="a.gguf", prompts=("ä", "b\n"), draft="b.gguf")),
    (stream.run, stream.StreamJob(model="a.gguf", prompts=("a",), budget_bytes=1 << 40, mode="mapped")),
    (_calibrate_child.run, _calibrate_child.Job(types=("Q8_0",), fill_bytes=1, cached_bytes=0, thread_count=2,
                                                runtime="llamacpp", skipped=(("Q8_0", "wide"),), limit_s=9.0)),
]  # fmt: skip
NAMES = [entry.__module__.rpartition(".")[2] + "." + entry.__name__ for entry, _ in SENT]


def sent(job: msgspec.Struct) -> Any:
    """The job as the child reads it from its standard input."""
    return json.loads(json.dumps(msgspec.to_builtins(job)))


@pytest.mark.parametrize(("entry", "job"), SENT, ids=NAMES)
def test_a_job_arrives_as_what_was_sent(entry: Callable[..., None], job: msgspec.Struct) -> None:
    arrived = _typed(entry, sent(job))
    assert arrived == job and type(arrived) is type(job)


@pytest.mark.parametrize(("entry", "job"), SENT, ids=NAMES)
def test_annotations_may_be_strings(entry: Callable[..., None], job: msgspec.Struct) -> None:
    """As in a module with ``from __future__ import annotations``."""
    names = dict(vars(import_module(type(job).__module__)), Emit=Emit)
    source = f"from __future__ import annotations\ndef late(job: {type(job).__name__}, emit: Emit) -> None: ..."
    exec(compile(source, "late", "exec"), names)
    assert names["late"].__annotations__["job"] == type(job).__name__
    assert _typed(names["late"], sent(job)) == job


def test_without_an_annotation_of_the_first_parameter_arguments_stay_as_they_are() -> None:
    def told(arguments, emit: Emit) -> None: ...

    def untold(arguments, emit): ...

    for entry in (told, untold):
        assert _typed(entry, {"a": [1, "b"]}) == {"a": [1, "b"]}


def test_a_field_that_no_job_has_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `repeat`"):
        _typed(protocol.run_generate, {"path": "a.gguf", "repeat": 3})


def test_no_job_is_left_out() -> None:
    modules = [import_module(f"{jobs.__name__}.{module.name}") for module in pkgutil.iter_modules(jobs.__path__)]
    kinds = {
        kind
        for module in modules
        for name, kind in inspect.getmembers(module, inspect.isclass)
        if name.endswith("Job") and kind.__module__.startswith("harness.measure.")
    }
    assert kinds and kinds <= {type(job) for _, job in SENT}


def test_a_prediction_that_is_no_number_is_a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(LlamaCpp):
        def open(self, *_: Any, **__: Any) -> Any:
            return contextlib.nullcontext()

    monkeypatch.setattr(score.plugins, "load", lambda *_: Broken())
    monkeypatch.setattr(score, "Scored", object)  # the session is never asked: its losses are given below
    monkeypatch.setattr(score, "text_nll", lambda *_: np.array([np.nan, 2.0, np.inf]))
    told: list[tuple[str, Any]] = []
    score.run_text(score.TextJob(runtime="ik", scenario=SCENARIO, path="a.gguf"), lambda *event: told.append(event))
    # JSON has no such numbers: they would arrive as null
    assert told == [("nll", [100.0, 2.0, 100.0])]
