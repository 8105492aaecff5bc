"""Decoding for minutes: what runs in the child, and what its windows say."""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

import msgspec
import psutil

from harness import plugins
from harness.domain.base import Frozen
from harness.domain.record import ModelIdentity
from harness.domain.result import Soak, Window
from harness.domain.scenario import Scenario
from harness.errors import RefusedError
from harness.measure import sensors
from harness.measure.child import ChildResult
from harness.measure.jobs.served import ServedJob, attached, memory_mark
from harness.measure.machine import fingerprint
from harness.measure.pipeline import Measurement, events_named, key_of
from harness.measure.protocol import Emit
from harness.ports import Runtime, Session
from harness.runtimes.server import AttachedServer
from harness.runtimes.server.answer import Request
from harness.stats.change import fall

BATTERY_PERCENT_MIN: Final = 10.0


class SoakJob(Frozen, frozen=True, kw_only=True):
    """What to run; each window decodes from an empty cache, again when the context is full.

    Attributes:
        path: Model's file; empty where a ``server`` is asked.
        window_s: Least length of a window.
        duty_ratio: Share of the time to decode in; the rest it sleeps after each window.
        celsius_max: Hotter ends the run, as less charge than ``battery_percent_min`` does; None for no limit.
        idle_s: The idle device's power is measured for so long before.
        meter: File that an external meter writes meanwhile (unix seconds, watts); empty for none.
    """

    path: str
    scenario: Scenario
    runtime: str = "llamacpp"
    server: ServedJob | None = None
    minutes: float = 10.0
    window_s: float = 5.0
    duty_ratio: float = 1.0
    celsius_max: float | None = None
    battery_percent_min: float = BATTERY_PERCENT_MIN
    idle_s: float = 5.0
    meter: str = ""


def run(arguments: Mapping[str, Any], emit: Emit) -> None:
    """Entry point of the child: tells ``engine``, each ``window``, and ``stopped`` where a limit ended it.

    Raises:
        HarnessError: The runtime, the model or the server cannot be used; ``outcome`` says how a server failed.
    """
    job = msgspec.convert(arguments, SoakJob)
    runtime: Runtime | AttachedServer = plugins.usable_runtime(job.runtime) if job.server is None else _server(job)
    here = not isinstance(runtime, AttachedServer) or runtime.local
    if not here and (job.celsius_max is not None or job.battery_percent_min != BATTERY_PERCENT_MIN):
        raise RefusedError("heat and battery of a server elsewhere are unknown: leave out --max-celsius, --min-battery")
    if job.celsius_max is not None and sensors.hottest_celsius() is None:
        raise RefusedError("this machine has no sensor of temperature: leave out --max-celsius")
    clock = getattr(runtime, "clock", None)
    now_s: Callable[[], float] = clock.now_s if clock is not None else time.perf_counter
    emit("engine", runtime.identity(job.scenario))
    meter, idle_watts = sensors.EnergyMeter(), 0.0
    scope = meter.source if here else "not available"
    if scope != "not available":
        meter.start()
        time.sleep(job.idle_s)
        idle_watts = (meter.finish_joules() or 0.0) / job.idle_s
    with ExitStack() as opened:
        if isinstance(runtime, AttachedServer):
            decoding: Callable[[], Iterator[int]] = partial(iter, _answers(job, runtime))
        else:
            session = opened.enter_context(closing(runtime.open(Path(job.path), job.scenario)))
            decoding = partial(_decoded, session, job.scenario.context_tokens)
        next(decoding())  # the first pass of an engine may read the file or make shaders: it is no window's
        emit("energy", {"scope": scope, "idle_watts": idle_watts, "started_unix_s": time.time()})
        start_s = now_s()
        while (since_s := now_s() - start_s) < 60 * job.minutes:
            meter.start()
            count, begin_s = 0, now_s()
            for made in decoding():  # each window begins with an empty cache: a growing one would look like heat
                count += made
                if now_s() - begin_s >= job.window_s:
                    break
            duration_s, joules = now_s() - begin_s, meter.finish_joules() if here else None
            window = Window(
                since_start_s=since_s,
                duration_s=duration_s,
                token_count=count,
                celsius=sensors.hottest_celsius() if here else None,
                frequency_hz=sensors.cpu_frequency_hz() if here else None,
                joules=max(joules - idle_watts * duration_s, 0.0) if joules is not None else None,
                battery_percent=sensors.battery_percent() if here else None,
                resident_bytes=_resident_bytes(runtime, emit),
            )
            emit("window", window)
            if limit := limit_reached(window, job):
                emit("stopped", limit)
                return
            if job.duty_ratio < 1:
                time.sleep(duration_s * (1 / job.duty_ratio - 1))


def _server(job: SoakJob) -> AttachedServer:
    assert job.server is not None
    return attached(job.server, job.scenario.context_tokens, job.scenario)


def _decoded(session: Session, context_tokens: int) -> Iterator[int]:
    """Decodes from an empty cache for as long as it is asked, one token at a time."""
    token = 1
    while True:
        session.clear()
        for position in range(context_tokens):
            session.decode((token,), position=position)
            token = session.greedy()
            yield 1


def _answers(job: SoakJob, server: AttachedServer) -> Iterator[int]:
    """Tokens of one answer after the other, each to a prompt of one token.

    By the speed of the last one each takes a quarter of a window, so that a window ends in time also when it slows
    down; it ends with its answer, and what the way to the server takes is in its time.
    """
    assert job.server is not None
    source, count = random.Random(job.server.seed), 8
    part_s = min(job.window_s / 4, job.server.patience.answer_s / 10)
    while True:
        asked = Request(prompt=server.prompt(1, source), new_tokens=count, context_tokens=job.scenario.context_tokens)
        answer = server.ask(asked)
        speed = answer.new_tokens / answer.duration_s
        count = max(1, min(round(part_s * speed), job.scenario.context_tokens - 1))
        yield answer.new_tokens


def _resident_bytes(runtime: Runtime | AttachedServer, emit: Emit) -> int | None:
    """Memory of what decodes; that of a server is told as ``memory`` too, since it is not the child's."""
    if not isinstance(runtime, AttachedServer):
        return int(psutil.Process().memory_info().rss)
    found = memory_mark(runtime, "loaded")
    for mark in ("loaded", "end"):  # the peak counts from the one to the other, and a window may be the last
        emit("memory", found | {"mark": mark})
    return found["rss_bytes"] or None


def limit_reached(window: Window, job: SoakJob) -> str:
    """Which limit of the user's a window has reached; empty for none."""
    if job.celsius_max is not None and window.celsius is not None and window.celsius > job.celsius_max:
        return f"{window.celsius:.1f} C, the limit is {job.celsius_max:g} C"
    if window.battery_percent is not None and window.battery_percent < job.battery_percent_min:
        return f"battery at {window.battery_percent:g} %, the limit is {job.battery_percent_min:g} %"
    return ""


def plan(job: SoakJob, model: ModelIdentity | None = None) -> Measurement:
    """The run as the pipeline takes it, of a model's file or of what a server, which is asked once, says that it runs.

    Raises:
        RefusedError: The server decides by itself what is asked for, or its context is shorter.
        ServerError: It cannot be reached.
    """
    key = key_of("soak", model.sha256, job, fingerprint().fingerprint) if model else ""
    if job.server is not None:
        model = _server(job).model()
    return Measurement(
        workload="soak",
        entry=f"{__name__}:run",
        job=job,
        scenario=job.scenario,
        read=lambda child: _read(child, job),
        runtime=job.runtime,
        model=model,
        key=key,
    )


def _read(child: ChildResult, job: SoakJob) -> Soak | None:
    windows, told = [msgspec.convert(data, Window) for data in events_named(child, "window")], dict(child.events)
    energy = told.get("energy", {"scope": "", "started_unix_s": 0.0})
    return summarise(
        windows,
        job,
        energy_scope=energy["scope"],
        battery_joules=sensors.battery_joules() if windows and windows[-1].battery_percent is not None else None,
        started_unix_s=energy["started_unix_s"],
        stopped=told.get("stopped", ""),
    )


def summarise(
    windows: Sequence[Window],
    job: SoakJob,
    *,
    energy_scope: str = "",
    battery_joules: float | None = None,
    started_unix_s: float = 0.0,
    stopped: str = "",
) -> Soak | None:
    """Burst, knee and level of a run; None without a window. An external meter's file counts instead of sensors."""
    if not windows:
        return None
    if job.meter:
        energy_scope = "external meter"
        spans = [(started_unix_s + w.since_start_s, w.duration_s) for w in windows]
        joules = [sensors.metered_joules(Path(job.meter), at, at + length_s) for at, length_s in spans]
        windows = [msgspec.structs.replace(w, joules=j) for w, j in zip(windows, joules, strict=True)]
    at = fall([w.tokens_per_s for w in windows])
    early, late = windows[: at or len(windows)], windows[-max(len(windows) // 4, 1) :]
    burst, level = median([w.tokens_per_s for w in early]), median([w.tokens_per_s for w in late])
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
        burst_joules_per_token=_joules(early),
        sustained_joules_per_token=each,
        energy_scope=energy_scope if each is not None else "",
        tokens_per_charge=battery_joules / each if battery_joules and each else None,
        stopped=stopped,
    )


def _joules(windows: Sequence[Window]) -> float | None:
    """Joules a token over windows; None where any of them has none."""
    told = [w.joules for w in windows if w.joules is not None]
    return sum(told) / sum(w.token_count for w in windows) if told and len(told) == len(windows) else None
