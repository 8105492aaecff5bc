"""Decoding for minutes: what runs in the child, and what its windows say."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median

from harness.core import plugins
from harness.core.base import Frozen
from harness.core.errors import RefusedError
from harness.core.ports import Emit, Runtime, Session
from harness.core.record import ModelIdentity
from harness.core.result import Soak, Window
from harness.core.scenario import Scenario
from harness.core.stats.change import fall
from harness.measure import sensors
from harness.measure.child import ChildResult
from harness.measure.machine import fingerprint
from harness.measure.pipeline import Measurement, engine_of, key_of
from harness.measure.wall_meter import WallMeter

IDLE_S = 5.0
"""The idle device's power is measured for so long before."""


class SoakJob(Frozen):
    """What to run; each window decodes from an empty cache, again when the context is full.

    Attributes:
        path: Model's file.
        window_s: Least length of a window.
        duty_ratio: Share of the time to decode in; the rest it sleeps after each window.
        celsius_max: Hotter ends the run, as less charge than ``battery_percent_min`` does; None for no limit.
        meter: Command of a wall meter that is read beside the run, whose energy counts; empty for none.
    """

    path: str
    scenario: Scenario
    runtime: str = "llamacpp"
    minutes: float = 10.0
    window_s: float = 5.0
    duty_ratio: float = 1.0
    celsius_max: float | None = None
    battery_percent_min: float = 10.0
    meter: str = ""


def run(job: SoakJob, emit: Emit) -> None:
    """Entry point of the child: tells ``engine``, each ``window``, and ``stopped`` where a limit ended it.

    Raises:
        HarnessError: The runtime or the model cannot be used.
    """
    runtime: Runtime = plugins.usable_runtime(job.runtime)
    if job.celsius_max is not None and sensors.hottest_celsius() is None:
        raise RefusedError("this machine has no sensor of temperature: leave out --max-celsius")
    now_s: Callable[[], float] = getattr(runtime, "now_s", time.perf_counter)
    emit("engine", runtime.identity(job.scenario))
    meter = sensors.EnergyMeter()
    idle_watts = 0.0
    if meter.source != "not available":
        meter.start()
        time.sleep(IDLE_S)
        idle_watts = (meter.finish_joules() or 0.0) / IDLE_S
    with closing(runtime.open(Path(job.path), job.scenario)) as session:
        # The first pass of an engine may read the file or make shaders: it is no window's.
        next(_decoded(session, job.scenario.context_tokens))
        emit("energy", {"scope": meter.source, "battery_joules": sensors.battery_joules()})
        start_s = now_s()
        while (since_s := now_s() - start_s) < 60 * job.minutes:
            meter.start()
            begin_s = now_s()
            # Each window begins with an empty cache: a growing one would look like heat.
            made = _decoded(session, job.scenario.context_tokens)
            count = next(count for count in made if now_s() - begin_s >= job.window_s)
            duration_s = now_s() - begin_s
            joules = meter.finish_joules()
            window = Window(
                since_start_s=since_s,
                duration_s=duration_s,
                token_count=count,
                celsius=sensors.hottest_celsius(),
                frequency_hz=sensors.cpu_frequency_hz(),
                joules=max(joules - idle_watts * duration_s, 0.0) if joules is not None else None,
                battery_percent=sensors.battery_percent(),
            )
            emit("window", window)
            if limit := limit_reached(window, job):
                emit("stopped", limit)
                return
            if job.duty_ratio < 1:
                time.sleep(duration_s * (1 / job.duty_ratio - 1))


def _decoded(session: Session, context_tokens: int) -> Iterator[int]:
    """Decode from an empty cache, one token each time that it is asked for the next.

    Each step gives the count of tokens that were decoded so far.
    """
    token = 1
    for made in itertools.count():
        if made % context_tokens == 0:
            session.clear()
        session.decode((token,), position=made % context_tokens)
        token = session.greedy()
        yield made + 1


def limit_reached(window: Window, job: SoakJob) -> str:
    """The limit of the user that a window has reached, in words; empty where it has reached none."""
    if job.celsius_max is not None and window.celsius is not None and window.celsius > job.celsius_max:
        return f"{window.celsius:.1f} C, the limit is {job.celsius_max:g} C"
    if window.battery_percent is not None and window.battery_percent < job.battery_percent_min:
        return f"battery at {window.battery_percent:g} %, the limit is {job.battery_percent_min:g} %"
    return ""


def plan(job: SoakJob, model: ModelIdentity) -> Measurement:
    """The run of a model's file as the pipeline takes it."""
    return Measurement(
        workload="soak",
        entry=f"{__name__}:run",
        job=job,
        scenario=job.scenario,
        read=lambda child: _read(child, job),
        runtime=job.runtime,
        model=model,
        key=key_of("soak", engine_of(job.runtime), model.sha256, job, fingerprint().fingerprint),
    )


def metered(plan: Measurement, job: SoakJob, meter: WallMeter, ended_s: Sequence[float]) -> Measurement:
    """The same run with the energy of each window by a wall meter, which nothing is subtracted from.

    Args:
        plan: The run as it is without.
        job: What is run.
        meter: It reads for as long as the run lasts.
        ended_s: When each window was told (``time.perf_counter``), filled while it runs.
    """

    def read(child: ChildResult) -> Soak | None:
        found = plan.read(child)
        if not isinstance(found, Soak):
            return None
        # Nothing is known of a window that was told after the last reading, so the run's last one may lack its energy.
        windows = [
            window.replace(joules=meter.joules(end_s - window.duration_s, end_s))
            for window, end_s in zip(found.windows, ended_s, strict=True)
        ]
        if windows and windows[-1].joules is None:
            windows = windows[:-1]
        again = summarise(windows, job, energy_scope=meter.scope)
        return again and again.replace(stopped=found.stopped)

    return plan._replace(read=read)


def _read(child: ChildResult, job: SoakJob) -> Soak | None:
    windows = child.told("window", Window)
    told = dict(child.events)
    energy = told.get("energy", {"scope": "", "battery_joules": None})
    battery_joules = None
    if windows and windows[-1].battery_percent is not None:
        battery_joules = energy["battery_joules"]
    soak = summarise(windows, job, energy_scope=energy["scope"], battery_joules=battery_joules)
    return soak and soak.replace(stopped=told.get("stopped", ""))


def summarise(
    windows: Sequence[Window], job: SoakJob, *, energy_scope: str = "", battery_joules: float | None = None
) -> Soak | None:
    """Burst, knee and level of a run; None without a window."""
    if not windows:
        return None
    at = fall([w.tokens_per_s for w in windows])
    early = windows[: at or len(windows)]
    late = windows[-max(len(windows) // 4, 1) :]
    burst = median(w.tokens_per_s for w in early)
    level = median(w.tokens_per_s for w in late)
    each = _joules(late)
    last = windows[-1]
    return Soak(
        minutes=(last.since_start_s + last.duration_s) / 60,
        duty_ratio=job.duty_ratio,
        windows=tuple(windows),
        burst_tokens_per_s=burst,
        sustained_tokens_per_s=level,
        knee_s=windows[at].since_start_s if at is not None else None,
        drop_ratio=1 - level / burst if at is not None else 0.0,
        sustained_joules_per_token=each,
        energy_scope=energy_scope if each is not None else "",
        tokens_per_charge=battery_joules / each if battery_joules and each else None,
    )


def _joules(windows: Sequence[Window]) -> float | None:
    """Joules a token over windows; None where any of them has none."""
    told = [w.joules for w in windows if w.joules is not None]
    if len(told) == len(windows):
        return sum(told) / sum(w.token_count for w in windows)
    return None
