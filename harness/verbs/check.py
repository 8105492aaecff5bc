"""The first thing a new user does: probe this machine, fetch a model, predict, run, compare."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from harness.core import plugins
from harness.core.device import Device
from harness.core.errors import HarnessError, RefusedError
from harness.core.model import ModelShape
from harness.core.placement import Placement
from harness.core.record import Record
from harness.core.scenario import Scenario
from harness.measure.engine_devices import engine_devices
from harness.measure.pipeline import How, Listener
from harness.measure.protocol import GenerateJob
from harness.models.weights import matrix_types
from harness.runtimes.llamacpp.loaded_devices import GgmlDevice
from harness.verbs.engines import improve
from harness.verbs.locate import obtain
from harness.verbs.on_target import probe_on, run_on
from harness.verbs.run import RunCell, cells_of, run_cells
from harness.verbs.this_machine import probed

DEFAULT_MODEL: Final = "smollm2-135m"
_CALIBRATION_S: Final = 120.0
"""Least time for the engine's calibration, where the limit of a child allows it."""


def check(
    models: Sequence[str],
    quant: str,
    scenario: Scenario,
    job: GenerateJob,
    how: How,
    *,
    probe_again: bool = False,
    fetch_engine: bool = False,
    depths: Sequence[int] = (0,),
    on: tuple[str, Path | None] = ("local", None),
) -> tuple[Device, list[Record]]:
    """Run each model at each depth, each with its prediction made beforehand.

    Returns the profile that the predictions came from, and each run.

    ``fetch_engine``: where the engine that runs leaves instructions of this machine unused, one that does not
    is fetched first. ``on`` is a target with its programs.

    Raises:
        HarnessError: A name is unknown, the machine could not be probed, or nothing predicts that runtime.
    """
    listener = how.listener
    cells = cells_of(models or (DEFAULT_MODEL,), quant, scenario, depth_tokens=depths)
    how = how._replace(
        resume=how.resume and not probe_again
    )  # what was done has the old profile's prediction
    if on[1] is not None:
        if probe_again:
            probe_on(*on, None)
        return run_on(on[0], cells, job, how, on[1])
    if job.runtime == "llamacpp":
        improve(listener, agreed=fetch_engine)
    runtime = plugins.usable_runtime(job.runtime)
    if "gguf" not in getattr(runtime, "formats", ("gguf",)):
        raise RefusedError(f"--runtime {job.runtime}: it cannot be predicted; `edge-harness run` measures it")
    timed = job.runtime
    if not hasattr(runtime, "module"):  # a program of its own: it is predicted from the library's costs
        timed = "llamacpp"
        runtime = plugins.usable_runtime("llamacpp")
    shapes, types = _seen(cells, listener)
    try:
        if timed != "ik":
            found = engine_devices(runtime.module)
        else:
            found = ()
    except HarnessError as error:  # a driver that dies takes no CPU with it
        found = ()
        listener.say(f"no GPU is checked: {error}")
    # One that a driver on the CPU plays is slower than the CPU: nobody would run a model there.
    driven = [d for d in reversed(found) if d.is_gpu and not d.is_software]
    gpus = {d.api: d for d in driven if scenario.api in {"", d.api}}
    if scenario.api not in {"", "cpu", *gpus}:
        raise RefusedError(
            f"--api {scenario.api}: no such GPU is driven here; `edge-harness doctor` says what is"
        )
    wall_s = how.limits.wall_s
    limit_s = min(wall_s, max(_CALIBRATION_S, wall_s / 5))  # under a minute where it is quiet
    device = probed(
        types, scenario, heard=listener, again=probe_again, gpus=gpus, limit_s=limit_s, runtime=timed
    )
    if not scenario.api:
        cells = [cell._replace(scenario=asked) for cell in cells for asked in _engines(cell, shapes, gpus)]
    return device, run_cells(cells, job, how=how, device=device)


def _engines(
    cell: RunCell, shapes: Mapping[str, ModelShape], gpus: Mapping[str, GgmlDevice]
) -> Iterator[Scenario]:
    """The scenario on the CPU, and for each GPU wholly there and split: half of the experts, or of the layers."""
    yield cell.scenario.replace(api="cpu")
    for api in gpus:
        yield cell.scenario.replace(api=api)
        if (shape := shapes.get(cell.model)) is not None:
            half = shape.layer_count // 2
            if shape.experts is not None:
                split = Placement(cpu_moe=half)
            else:
                split = Placement(gpu_layers=half + 1)
            yield cell.scenario.replace(api=api, placement=split)


def _seen(cells: Sequence[RunCell], listener: Listener) -> tuple[dict[str, ModelShape], set[str]]:
    """Shapes and weight types of all models that can be had.

    A model that cannot be had fails later, in its own record.
    """
    shapes: dict[str, ModelShape] = {}
    found: set[str] = set()
    for cell in cells:
        with contextlib.suppress(HarnessError):
            located = obtain(cell.model, cell.quant, progress=listener.fetched)
            if located.weights is not None:
                found |= matrix_types(located.weights)
                shapes[cell.model] = located.weights.shape
    return shapes, found
