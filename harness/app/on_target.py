"""Probe a target, and measure models there with the prediction made before."""

import re
from collections.abc import Sequence
from pathlib import Path

from harness.app.fit import predict
from harness.app.locate import Located, locate
from harness.app.run import Cell, Options, hashed
from harness.catalog.devices import load_device
from harness.catalog.paths import home_dir
from harness.domain.device import DeviceProfile
from harness.domain.record import ModelIdentity, RunRecord
from harness.errors import RefusedError
from harness.measure.pipeline import Listener, Pipeline
from harness.measure.probe import save_profile
from harness.measure.runner import identify
from harness.targets import target_named
from harness.targets.bench import BenchJob, bench_on, read_bandwidth
from harness.targets.facts import facts, probe
from harness.targets.shell import ShellTarget


def probe_on(on: str, programs: Path | None, out: Path | None) -> tuple[DeviceProfile, Path]:
    """Profile of a target, written into the user's own devices unless ``out`` is given.

    Raises:
        CouldNotRunError: It does not answer, or its bandwidth is known from nowhere.
    """
    target = target_named(on)
    read = read_bandwidth(target, programs) if programs is not None else None
    profile = probe(target, out.stem if out else _name(target), read)
    return profile, save_profile(profile, out)


def _name(target: ShellTarget) -> str:
    return "on-" + re.sub(r"[^a-z0-9]+", "-", facts(target).title.lower()).strip("-")


def run_on(
    on: str, cells: Sequence[Cell], options: Options, programs: Path | None, listener: Listener
) -> tuple[DeviceProfile, list[RunRecord]]:
    """Predict, run and keep each cell on a target, which is probed first where no profile of it is kept.

    Raises:
        RefusedError: No folder with llama-bench is named, or an option asks for what llama-bench cannot do.
        CouldNotRunError: The target cannot be used.
    """
    programs = needed(programs)
    if options.greedy or options.how.resume or options.limits.memory_bytes is not None or options.runtime != "llamacpp":
        raise RefusedError("llama-bench on a target takes no --greedy, --resume, --memory-limit, --as or --runtime")
    target = target_named(on)
    kept = home_dir() / "devices" / f"{_name(target)}.toml"
    device = load_device(str(kept)) if kept.is_file() else probe_on(on, programs, None)[0]
    records = []
    with Pipeline(options.how, listener) as pipeline:
        for cell in cells:
            located = locate(cell.model, cell.quant, progress=listener.fetched)
            resolved = located.resolved()
            job = BenchJob(
                scenario=cell.scenario,
                programs=programs,
                repetitions=options.repetitions,
                timeout_s=options.limits.wall_s,
            )
            prediction = predict(resolved, device, cell.scenario) if resolved is not None else None
            model = identity(located)
            record = bench_on(target, located.path, job, model, prediction=prediction, progress=listener.fetched)
            records.append(pipeline.keep(record))
    return device, records


def identity(located: Located) -> ModelIdentity:
    """What identifies a model in a record, its hash remembered until the file changes."""
    sha256 = hashed(located.path)
    return identify(located.path, located.weights, name=located.name, quant=located.quant, sha256=sha256)


def needed(programs: Path | None) -> Path:
    """The folder with llama-bench.

    Raises:
        RefusedError: None was named.
    """
    if programs is None:
        raise RefusedError("--on needs --programs: a folder with llama-bench for that target")
    return programs
