"""The measurement that llama-bench makes, with more asked of it: load, first token, prefill, decode token by token."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from harness import plugins
from harness.domain.model import Weights
from harness.domain.prediction import Prediction
from harness.domain.result import EngineBuffer, Generation
from harness.domain.scenario import Scenario
from harness.measure.child import Limits
from harness.measure.file_hash import file_sha256
from harness.measure.generate_job import GenerateJob
from harness.measure.pipeline import Measurement
from harness.measure.runner import check_scenario, identify
from harness.onnx.files import combined_hash, model_files

ENTRY: Final = "harness.measure.protocol:run_generate"


def plan(
    path: Path,
    weights: Weights | None,
    scenario: Scenario,
    *,
    name: str = "",
    quant: str = "",
    runtime: str = "llamacpp",
    repetitions: int = 5,
    retries: int | None = None,
    cold_loads: int = 1,
    warm_loads: int = 1,
    greedy: bool = False,
    limits: Limits = Limits(),  # noqa: B008  an immutable tuple
    prediction: Prediction | None = None,
    sha256: str = "",
    hash_of: Callable[[Path], str] = file_sha256,
    patience_s: float = 20.0,
    key: str = "",
) -> Measurement:
    """The protocol on one model file.

    Args:
        path: Model file.
        weights: Its tensors and shape, for the record; None when they cannot be read.
        scenario: What to measure.
        name: Name of the model; the file's stem when empty.
        quant: Its mixture, where ``weights`` do not tell.
        runtime: Runtime module.
        repetitions: Clean samples wanted of each test.
        retries: Further attempts for disturbed samples; None for twice the repetitions.
        cold_loads: Loads past the page cache.
        warm_loads: Loads from it.
        greedy: Choose tokens from the logits inside the clock.
        limits: Wall clock and memory of the child.
        prediction: What was predicted, to be kept with the record.
        sha256: Hash of the file, if known.
        hash_of: Hashes a file, where it is not.
        patience_s: Longest time spent on disturbed samples and the pauses after them.
        key: Key under which the result is found again.

    Raises:
        RefusedError: The scenario does not fit its own context.
        UnknownNameError: No such runtime.
        BadDataError: The model file cannot be read.
    """
    check_scenario(scenario)
    sha256 = sha256 or combined_hash(model_files(path), hash_of)
    job = GenerateJob(
        path=str(path.absolute()),
        scenario=scenario,
        runtime=runtime,
        repetitions=repetitions,
        retries=2 * repetitions if retries is None else retries,
        cold_loads=cold_loads,
        warm_loads=warm_loads,
        greedy=greedy,
        parent_pid=os.getpid(),
        patience_s=patience_s,
    )
    return Measurement(
        workload="generate",
        entry=getattr(plugins.load("harness.runtimes", runtime, "RUNTIME"), "entry", ENTRY),
        job=job,
        scenario=scenario,
        read=lambda ended: Generation(
            repetitions=repetitions,
            greedy=greedy,
            buffers=next((msgspec.convert(d, tuple[EngineBuffer, ...]) for n, d in ended.events if n == "buffers"), ()),
        ),
        runtime=runtime,
        model=identify(path, weights, name=name, quant=quant, sha256=sha256),
        prediction=prediction,
        wanted_count=repetitions,
        limits=limits,
        key=key,
    )
