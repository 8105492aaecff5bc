"""Probe a target, and measure models there with the prediction made before."""

import re
from collections.abc import Sequence
from pathlib import Path

from harness.app.fit import predict
from harness.app.locate import locate
from harness.catalog.devices import load_device
from harness.catalog.paths import home_dir
from harness.domain.device import DeviceProfile
from harness.domain.record import RunRecord
from harness.domain.scenario import Scenario
from harness.errors import RefusedError
from harness.measure.lock import machine_lock
from harness.measure.probe import save_profile
from harness.records.history import History
from harness.records.store import save
from harness.targets import target_named
from harness.targets.bench import BenchJob, bench_on, read_bandwidth
from harness.targets.facts import facts, probe
from harness.targets.shell import Progress, ShellTarget


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
    on: str,
    models: Sequence[str],
    quant: str,
    scenario: Scenario,
    programs: Path | None,
    *,
    repetitions: int,
    timeout_s: float,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> list[RunRecord]:
    """Predict, run and keep each model on a target; the target is probed first where no profile of it is kept.

    Raises:
        RefusedError: No folder with llama-bench is named.
        CouldNotRunError: The target cannot be used.
    """
    if programs is None:
        raise RefusedError("--on needs --programs: a folder with llama-bench for that target")
    target = target_named(on)
    kept = home_dir() / "devices" / f"{_name(target)}.toml"
    device = load_device(str(kept)) if kept.is_file() else probe_on(on, programs, None)[0]
    job = BenchJob(scenario=scenario, programs=str(programs), repetitions=repetitions, timeout_s=timeout_s)
    records = []
    for ref in models:
        located = locate(ref, quant)
        resolved = located.resolved()
        prediction = predict(resolved, device, scenario) if resolved is not None else None
        with machine_lock(home_dir() / "measure.lock"):
            record = bench_on(target, located.path, job, prediction=prediction, progress=progress)
        with History(home_dir() / "history.sqlite") as history:
            history.append(record)
        if folder is not None:
            save(record, folder / f"{record.run_id}.json")
        records.append(record)
    return records
