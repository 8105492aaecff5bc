"""The measurement that llama-bench makes, with more asked of it: load, first token, prefill, decode token by token."""

from pathlib import Path
from typing import Final

import msgspec

from harness import plugins
from harness.domain.model import Weights
from harness.domain.prediction import Prediction
from harness.domain.result import EngineBuffer, Generation
from harness.measure.pipeline import Measurement
from harness.measure.protocol import GenerateJob
from harness.measure.runner import check_scenario, identify
from harness.onnx.files import combined_hash, model_files

ENTRY: Final = "harness.measure.protocol:run_generate"


def plan(
    job: GenerateJob,
    weights: Weights | None,
    *,
    name: str = "",
    quant: str = "",
    prediction: Prediction | None = None,
    sha256: str = "",
    key: str = "",
) -> Measurement:
    """The protocol on one model file.

    Without ``weights`` (they cannot be read) ``quant`` says the mixture; without ``name`` it is the file's stem, and
    without ``sha256`` the file is hashed. The result is found again under ``key``.

    Raises:
        RefusedError: The scenario does not fit its own context.
        UnknownNameError: No such runtime.
        BadDataError: The model file cannot be read.
    """
    check_scenario(job.scenario)
    path = Path(job.path)
    sha256 = sha256 or combined_hash(model_files(path))
    return Measurement(
        workload="generate",
        entry=getattr(plugins.load("harness.runtimes", job.runtime, "RUNTIME"), "entry", ENTRY),
        job=msgspec.structs.replace(job, path=str(path.absolute())),
        scenario=job.scenario,
        read=lambda ended: Generation(
            repetitions=job.repetitions,
            greedy=job.greedy,
            buffers=next((msgspec.convert(d, tuple[EngineBuffer, ...]) for n, d in ended.events if n == "buffers"), ()),
        ),
        runtime=job.runtime,
        model=identify(path, weights, name=name, quant=quant, sha256=sha256),
        prediction=prediction,
        wanted_count=job.repetitions,
        key=key,
    )
