"""The measurement that llama-bench makes, with more asked of it: load, first token, prefill, decode token by token."""

from pathlib import Path
from typing import Final

from harness.core import plugins
from harness.core.model import Weights
from harness.core.prediction import Prediction
from harness.core.result import EngineBuffer, Generation
from harness.measure.pipeline import Measurement
from harness.measure.protocol import GenerateJob
from harness.measure.runner import check_scenario, identify

ENTRY: Final = "harness.measure.protocol:run_generate"


def plan(
    job: GenerateJob,
    weights: Weights | None,
    *,
    name: str = "",
    quant: str = "",
    prediction: Prediction | None = None,
    key: str = "",
) -> Measurement:
    """The protocol on one model, which is named as :func:`~harness.measure.runner.identify` has it.

    A later run finds the result again under ``key``, and does not repeat it.

    Raises:
        RefusedError: The scenario does not fit its own context.
        UnknownNameError: No such runtime.
        BadDataError: The model file cannot be read.
    """
    check_scenario(job.scenario)
    path = Path(job.path)
    return Measurement(
        workload="generate",
        entry=getattr(plugins.load("harness.runtimes", job.runtime, "RUNTIME"), "entry", ENTRY),
        job=job.replace(path=str(path.absolute())),
        scenario=job.scenario,
        read=lambda ended: Generation(
            repetitions=job.repetitions,
            buffers=next(iter(ended.told("buffers", tuple[EngineBuffer, ...])), ()),
        ),
        runtime=job.runtime,
        model=identify(path, weights, name=name, quant=quant),
        prediction=prediction,
        wanted_count=job.repetitions,
        key=key,
    )
