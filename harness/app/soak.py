"""One run over minutes, on this machine or on a target."""

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from harness.app.locate import locate
from harness.catalog.paths import home_dir
from harness.domain.soak import Soak, Window
from harness.errors import CouldNotRunError, RefusedError
from harness.measure import sensors
from harness.measure.child import Limits, run_child
from harness.measure.lock import machine_lock
from harness.measure.soak import SoakJob, summarise


def soak(
    job: SoakJob, quant: str, on: str, programs: Path | None, meter: Path | None, *, say: Callable[[str], None]
) -> Soak:
    """Run ``job``; its ``path`` is what the user named.

    Args:
        job: What to run.
        quant: Mixture wanted.
        on: Target.
        programs: Folder with llama-bench for the target.
        meter: File of an external meter (unix seconds, watts) that was written meanwhile; counts instead of sensors.
        say: Told each window.

    Raises:
        RefusedError: A target without programs, or a duty cycle that llama-bench cannot keep.
        CouldNotRunError: Nothing was measured; says why.
    """
    job = msgspec.structs.replace(job, path=str(locate(job.path, quant).path))
    windows: list[Window] = []

    def hear(name: str, data: object) -> None:
        if name == "window":
            windows.append(msgspec.convert(data, Window))
            say(f"{windows[-1].since_start_s:6.0f} s  {windows[-1].tokens_per_s:.2f} tokens/s")

    started_unix_s = time.time()
    if on != "local":
        from harness.targets import target_named
        from harness.targets.bench import soak_on

        if programs is None:
            raise RefusedError("--on needs --programs: a folder with llama-bench for that target")
        if job.duty_ratio < 1 or job.runtime != "llamacpp":
            raise RefusedError("on a target llama-bench decodes without pauses: leave out --duty and --runtime")
        ended = soak_on(target_named(on), Path(job.path), job, programs, hear=lambda window: hear("window", window))
        scope, stopped, started_unix_s = ended.scope, ended.stopped, ended.started_unix_s
        battery = ended.battery_joules
    else:
        with machine_lock(home_dir() / "run.lock"):
            result = run_child(
                "harness.measure.soak:run_soak", job, limits=Limits(wall_s=120 * job.minutes + 600), on_event=hear
            )
        told = {name: data for name, data in result.events if name != "window"}
        scope, battery = str(told.get("energy", {}).get("scope", "")), sensors.battery_joules()
        started_unix_s = told.get("energy", {}).get("started_unix_s", started_unix_s)
        stopped = str(told.get("stopped", "")) or result.detail
    if meter is not None:
        scope, windows = f"external meter {meter.name}", [_metered(w, meter, started_unix_s) for w in windows]
    found = summarise(windows, job, energy_scope=scope, battery_joules=battery, stopped=stopped)
    if found is None:
        raise CouldNotRunError(f"{job.path}: {stopped or 'no window was finished'}")
    return found


def _metered(window: Window, meter: Path, started_unix_s: float) -> Window:
    start = started_unix_s + window.since_start_s
    joules = sensors.metered_joules(meter, start, start + window.duration_s)
    return msgspec.structs.replace(window, joules=joules)
