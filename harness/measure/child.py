"""Run a job in a child process that may crash, hang or be killed: what happened becomes a result, never an exception.

The child appends its events to a file as it goes; whatever it wrote before it died is kept. The child dies
with its parent, also with one that was killed.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import msgspec

from harness.core.record import MemoryUse, Outcome
from harness.measure import interrupts
from harness.measure.cgroup import LimitGroup, system_oom_kill_count
from harness.measure.memory_watch import MemoryWatch

LOG_LINES_KEPT: Final = 200
_LOG_LINE_CHARS: Final = 1000
_EVENT_LINE_BYTES: Final = 16 << 20
_GRACE_S: Final = 1.0
_POLL_S: Final = 0.5
"""Between looks at the events; each look takes a measured core from the engine."""

_OF_MEMORY: Final = re.compile(
    "Memory allocation still failed|bad_alloc|(failed|unable) to allocate|MemoryError|Cannot allocate memory"
)

_CAUSES: Final = {
    "SIGKILL": " from outside",
    "SIGBUS": ": the model file shrank or could not be read",
}

OnEvent = Callable[[str, Any], None]


class Limits(NamedTuple):
    """What a child may use: time, memory, and CPUs (none named: all).

    A limit of memory is held by a control group where ``use_group`` and the system let one be made (then the
    page cache of files it reads first counts too), else by a watchdog on anonymous memory.
    """

    wall_s: float = 1800.0
    memory_bytes: int | None = None
    use_group: bool = True
    cpus: tuple[int, ...] = ()


class ChildResult(NamedTuple):
    """How a child ended: some lines for people in ``detail``, and all whole events, (name, data), in order."""

    outcome: Outcome
    detail: str
    events: tuple[tuple[str, Any], ...]
    memory: MemoryUse
    duration_s: float

    def told(self, name: str, kind: Any = Any) -> list[Any]:
        """What it told under a name, in order, as values of a type."""
        return [msgspec.convert(data, kind) for event, data in self.events if event == name]


def run_child(
    target: str,
    arguments: Mapping[str, Any] | msgspec.Struct,
    *,
    limits: Limits = Limits(),  # noqa: B008  an immutable tuple
    on_event: OnEvent | None = None,
    environment: Mapping[str, str] = {},
) -> ChildResult:
    """Call ``target``, a ``package.module:function``, in a child process; what interrupts us ends it too.

    Its outcome is then ``interrupted``: for a run that is recorded. Where no record is kept, see
    :func:`run_helper`.

    It gets the arguments as the type of its first parameter, and ``emit(name, data)``, which appends one
    event. ``on_event`` is called in this process with each event soon after it was told; the variables of
    ``environment`` are added to ours.
    """
    group = None
    if limits.use_group and limits.memory_bytes is not None:
        group = LimitGroup.make(limits.memory_bytes)
    oom_before = system_oom_kill_count()
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="edge-harness-") as folder:
        run = _ChildProcess(limits, Path(folder) / "events.jsonl", on_event, environment)
        watch = MemoryWatch(
            run.process.pid,
            limit_bytes=None if group else limits.memory_bytes,
            on_excess=lambda: run.kill("out of memory"),
        )
        try:
            if group:
                group.add(run.process.pid)
            watch.start()
            run.hand_over(target, arguments)
            run.wait(started_s)
        except KeyboardInterrupt:
            run.kill("interrupted")
        finally:
            run.end()
            memory = watch.stop()
            killed_count = system_oom_kill_count() - oom_before
            if group:
                killed_count = killed_count or group.oom_kill_count()
                memory = memory.replace(cgroup_peak_bytes=group.peak_bytes())
                group.remove()
        run.read_events()
    outcome, detail = classify(
        run.process.returncode,
        stopped_for=run.stopped_for,
        killed_for_memory=killed_count > 0,
        events=run.events,
        log=tuple(run.log),
        limits=limits,
    )
    return ChildResult(outcome, detail, tuple(run.events), memory, time.monotonic() - started_s)


def run_helper(
    target: str,
    arguments: Mapping[str, Any] | msgspec.Struct,
    *,
    limits: Limits = Limits(),  # noqa: B008  an immutable tuple
    on_event: OnEvent | None = None,
) -> ChildResult:
    """Run a child as :func:`run_child` does, where no record is kept of it.

    Raises:
        KeyboardInterrupt: The child was interrupted.
    """
    ended = run_child(target, arguments, limits=limits, on_event=on_event)
    if ended.outcome == "interrupted":
        raise KeyboardInterrupt
    return ended


class _ChildProcess:
    """The process of a child, and what it told until now."""

    def __init__(
        self, limits: Limits, events_path: Path, on_event: OnEvent | None, environment: Mapping[str, str]
    ) -> None:
        self._limits = limits
        self._events_path = events_path
        self._on_event = on_event
        self._offset = 0
        self.stopped_for: Outcome | None = None
        self.events: list[tuple[str, Any]] = []
        self.log: deque[str] = deque(maxlen=LOG_LINES_KEPT)
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("child_process.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "GGML_NO_BACKTRACE": "1",  # ggml would start a debugger on an abort, and that can hang
                "PYTHONUNBUFFERED": "1",
                "PYTHONDONTWRITEBYTECODE": "1",
                **environment,
            },
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._drain, name="child-log", daemon=True)
        self._reader.start()

    def hand_over(self, target: str, arguments: Mapping[str, Any] | msgspec.Struct) -> None:
        """Give it its job; its standard input stays open."""
        job = {
            "target": target,
            "arguments": msgspec.to_builtins(arguments),
            "events": str(self._events_path),
            "sys_path": [str(Path(entry).absolute()) for entry in sys.path],  # "" is the current folder
            "cpus": self._limits.cpus,
        }
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died at once: its status tells
            self.process.stdin.write(json.dumps(job).encode() + b"\n")
            self.process.stdin.flush()

    def wait(self, started_s: float) -> None:
        """Until it ends, or its time is over."""
        while self.process.poll() is None:
            # Its output ends when it does; ``Popen.wait`` would wake up every few milliseconds, on measured
            # cores.
            self._reader.join(_POLL_S)
            if not self._reader.is_alive():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(_POLL_S)
            self.read_events()
            if time.monotonic() - started_s > self._limits.wall_s and self.process.poll() is None:
                self.kill("timed out")

    def kill(self, outcome: Outcome) -> None:
        """End it, for that reason unless there was one before."""
        self.stopped_for = self.stopped_for or outcome
        if outcome == "timed out":
            # An abort first: the child's fault handler then says where it hung.
            with contextlib.suppress(ProcessLookupError, ValueError):  # Windows sends no such signal
                self.process.send_signal(signal.SIGABRT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_GRACE_S)
        self.end()

    def end(self) -> None:
        """End it and whatever it started and left behind."""
        if self.process.poll() is None:
            self.stopped_for = self.stopped_for or "failed"
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self._reader.join(_GRACE_S)

    def _drain(self) -> None:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline(_LOG_LINE_CHARS):
            self.log.append(line.decode("utf-8", "replace").rstrip())

    def read_events(self) -> None:
        """What it told since the last look, whole lines alone."""
        if not self._events_path.exists():
            return
        with self._events_path.open("rb") as file:
            file.seek(self._offset)
            while (line := file.readline(_EVENT_LINE_BYTES)).endswith(b"\n"):
                self._offset += len(line)
                entry = msgspec.json.decode(line)
                self.events.append((entry["event"], entry["data"]))
                if self._on_event:
                    self._on_event(*self.events[-1])


def classify(  # noqa: PLR0911  one line for each way to end
    status: int,
    *,
    stopped_for: Outcome | None,
    killed_for_memory: bool,
    events: Sequence[tuple[str, Any]],
    log: tuple[str, ...],
    limits: Limits,
) -> tuple[Outcome, str]:
    """Outcome and detail of a child from all that is known of its end."""
    last = "\n".join(["", *filter(None, log[-8:])])
    allowed = ""
    if limits.memory_bytes is not None:
        mib = limits.memory_bytes / 2**20
        allowed = f"; it was allowed {mib:.0f} MiB: raise --memory-limit or use a smaller model"
    if stopped_for == "timed out":
        return stopped_for, f"stopped after {limits.wall_s:g} s; raise --timeout or shorten the test{last}"
    if stopped_for == "out of memory":
        return stopped_for, f"stopped when it held more than {limits.memory_bytes} bytes of anonymous memory"
    if stopped_for is not None:
        return stopped_for, interrupts.reason()
    names = [name for name, _ in events]
    if status == 0 and "end" in names:
        return "ok", ""
    error: dict[str, str] = {}
    if status >= 0 and "error" in names:
        error = dict(events)["error"]
    text = error.get("detail") or error.get("kind", "")
    killer = next((known.name for known in signal.Signals if known == -status), f"signal {-status}")
    if killer == "SIGKILL" and killed_for_memory:
        return "out of memory", f"the kernel killed it for lack of memory{allowed}"
    if (status >= 0 or killer == "SIGABRT") and _OF_MEMORY.search("\n".join((text, *log))):
        return "out of memory", (text or "memory could not be had") + allowed + ("" if text else last)
    if error:
        return cast("Outcome", error.get("outcome", "failed")), text
    if status >= 0:
        return "failed", f"the child ended with status {status} and without a result{last}"
    if killer == "SIGABRT":
        assertion = next((line for line in log if "GGML_ASSERT" in line or "GGML_ABORT" in line), "")
        return "aborted", assertion or f"ended by SIGABRT{last}"
    return "crashed", f"ended by {killer}{_CAUSES.get(killer, '')}{last}"
