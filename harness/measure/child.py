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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from harness.domain.record import MemoryUse, Outcome
from harness.measure import interrupts
from harness.measure.cgroup import LimitGroup, system_oom_kill_count
from harness.measure.memory_watch import MemoryWatch

LOG_LINES_KEPT: Final = 200
_LOG_LINE_CHARS: Final = 1000
_EVENT_LINE_BYTES: Final = 16 << 20
_GRACE_S: Final = 1.0
_POLL_S: Final = 0.5
"""Between looks at the events; each look takes a measured core from the engine."""

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
    environment: Mapping[str, str] | None = None,
) -> ChildResult:
    """Call ``target``, a ``package.module:function``, in a child process; what interrupts us ends it too.

    Its outcome is then ``interrupted``: for a run that is recorded. Where no record is kept, see
    :func:`run_helper`.

    It gets the arguments as the type of its first parameter, and ``emit(name, data)``, which appends one
    event. ``on_event`` is called in this process with each event soon after it was told; the variables of
    ``environment`` are added to ours.
    """
    with tempfile.TemporaryDirectory(prefix="edge-harness-") as folder:
        return _Run(
            target, arguments, limits, on_event, environment or {}, Path(folder) / "events.jsonl"
        ).run()


def run_helper(
    target: str,
    arguments: Mapping[str, Any] | msgspec.Struct,
    *,
    limits: Limits = Limits(),  # noqa: B008  an immutable tuple
    on_event: OnEvent | None = None,
) -> ChildResult:
    """As :func:`run_child`, for a child of which no record is kept.

    KeyboardInterrupt where it was interrupted.
    """
    ended = run_child(target, arguments, limits=limits, on_event=on_event)
    if ended.outcome == "interrupted":
        raise KeyboardInterrupt
    return ended


@dataclass
class _Run:
    _target: str
    _arguments: Mapping[str, Any] | msgspec.Struct
    _limits: Limits
    _on_event: OnEvent | None
    _environment: Mapping[str, str]
    _events_path: Path
    _offset: int = 0
    _stopped_for: Outcome | None = None
    _events: list[tuple[str, Any]] = field(default_factory=list)
    _log: deque[str] = field(default_factory=lambda: deque(maxlen=LOG_LINES_KEPT))

    def run(self) -> ChildResult:
        limits = self._limits
        group = None
        if limits.use_group and limits.memory_bytes is not None:
            group = LimitGroup.make(limits.memory_bytes)
        oom_before = system_oom_kill_count()
        started_s = time.monotonic()
        process = self._spawn()
        reader = threading.Thread(target=self._drain, args=(process,), name="child-log", daemon=True)
        reader.start()
        watch = MemoryWatch(
            process.pid,
            limit_bytes=None if group else limits.memory_bytes,
            on_excess=lambda: self._kill(process, "out of memory"),
        )
        try:
            if group:
                group.add(process.pid)
            watch.start()
            self._hand_over(process, limited=group is None)
            self._wait(process, reader, started_s)
        except KeyboardInterrupt:
            self._kill(process, "interrupted")
        finally:
            if process.poll() is None:
                self._kill(process, self._stopped_for or "failed")
            with contextlib.suppress(ProcessLookupError, PermissionError):
                _kill_group(process.pid)  # what it started and left behind
            if process.stdin:
                with contextlib.suppress(OSError):
                    process.stdin.close()
            memory = watch.stop()
            reader.join(_GRACE_S)
            killed_for_memory = (
                group.oom_kill_count() if group else 0
            ) or system_oom_kill_count() - oom_before
            if group:
                memory = memory.replace(cgroup_peak_bytes=group.peak_bytes())
                group.remove()
        self._read_events()
        outcome, detail = classify(
            process.returncode,
            stopped_for=self._stopped_for,
            killed_for_memory=killed_for_memory > 0,
            events=self._events,
            log=tuple(self._log),
            limits=limits,
        )
        return ChildResult(outcome, detail, tuple(self._events), memory, time.monotonic() - started_s)

    def _spawn(self) -> "subprocess.Popen[bytes]":
        environment = {
            **os.environ,
            "GGML_NO_BACKTRACE": "1",  # ggml would start a debugger on an abort, and that can hang
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            **self._environment,
        }
        return subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("_child.py")), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )

    def _hand_over(self, process: "subprocess.Popen[bytes]", *, limited: bool) -> None:
        most = None
        if limited:
            most = self._limits.memory_bytes
        job = {
            "target": self._target,
            "arguments": msgspec.to_builtins(self._arguments),
            "events": str(self._events_path),
            "sys_path": [str(Path(p).absolute()) if p else str(Path.cwd()) for p in sys.path],
            # More than it may hold, since much of what is reserved is never touched: it only stops what grows
            # faster than the watchdog looks.
            "data_limit_bytes": None if most is None else 2 * most + (512 << 20),
            "cpus": self._limits.cpus,
        }
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died at once: its status tells
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()

    def _wait(self, process: "subprocess.Popen[bytes]", reader: threading.Thread, started_s: float) -> None:
        while process.poll() is None:
            # Its output ends when it does; ``Popen.wait`` would wake up every few milliseconds, on measured
            # cores.
            reader.join(_POLL_S)
            if not reader.is_alive():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_POLL_S)
            self._read_events()
            if time.monotonic() - started_s > self._limits.wall_s and process.poll() is None:
                self._kill(process, "timed out")

    def _kill(self, process: "subprocess.Popen[bytes]", outcome: Outcome) -> None:
        self._stopped_for = self._stopped_for or outcome
        if outcome == "timed out":
            # An abort first: the child's fault handler then says where it hung.
            with contextlib.suppress(ProcessLookupError, ValueError):  # Windows sends no such signal
                process.send_signal(signal.SIGABRT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE_S)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            _kill_group(process.pid)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()

    def _drain(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        while line := process.stdout.readline(_LOG_LINE_CHARS):
            self._log.append(line.decode("utf-8", "replace").rstrip())

    def _read_events(self) -> None:
        if not self._events_path.exists():
            return
        with self._events_path.open("rb") as file:
            file.seek(self._offset)
            while (line := file.readline(_EVENT_LINE_BYTES)).endswith(b"\n"):
                self._offset += len(line)
                entry = msgspec.json.decode(line)
                self._events.append((entry["event"], entry["data"]))
                if self._on_event:
                    self._on_event(*self._events[-1])


def classify(  # noqa: PLR0911  one line for each way to end
    status: int,
    *,
    stopped_for: Outcome | None,
    killed_for_memory: bool,
    events: list[tuple[str, Any]],
    log: tuple[str, ...],
    limits: Limits,
) -> tuple[Outcome, str]:
    """Outcome and detail of a child from all that is known of its end."""
    last = f"\n{_tail(log)}" if log else ""
    error = next((data for name, data in reversed(events) if name == "error"), None)
    if stopped_for == "timed out":
        return "timed out", f"stopped after {limits.wall_s:g} s; raise --timeout or shorten the test{last}"
    if stopped_for == "out of memory":
        return (
            "out of memory",
            f"stopped when it held more than {limits.memory_bytes} bytes of anonymous memory",
        )
    if stopped_for is not None:
        return stopped_for, interrupts.reason()
    if status < 0:
        return _of_signal(-status, killed_for_memory=killed_for_memory, log=log, limits=limits)
    if error is not None:
        text = str(error.get("detail") or error.get("kind"))
        if _speaks_of_memory(text, *log):
            return "out of memory", f"{text}{_limit_words(limits)}"
        return error.get("outcome", "failed"), text
    if status == 0 and any(name == "end" for name, _ in events):
        return "ok", ""
    if _speaks_of_memory(*log):
        return "out of memory", f"memory could not be had{_limit_words(limits)}{last}"
    return "failed", f"the child ended with status {status} and without a result{last}"


def _of_signal(
    number: int, *, killed_for_memory: bool, log: tuple[str, ...], limits: Limits
) -> tuple[Outcome, str]:
    name = next((known.name for known in signal.Signals if known == number), f"signal {number}")
    assertion = next((line for line in log if "GGML_ASSERT" in line or "GGML_ABORT" in line), "")
    if name == "SIGKILL":
        if killed_for_memory:
            return "out of memory", f"the kernel killed it for lack of memory{_limit_words(limits)}"
        return "crashed", "ended by SIGKILL from outside"
    if name == "SIGABRT":
        if _speaks_of_memory(*log):
            return "out of memory", f"memory could not be had{_limit_words(limits)}\n{_tail(log)}"
        return "aborted", assertion or f"ended by SIGABRT\n{_tail(log)}"
    if name == "SIGBUS":
        return "crashed", f"ended by SIGBUS: the model file shrank or could not be read\n{_tail(log)}"
    return "crashed", f"ended by {name}\n{_tail(log)}"


def _speaks_of_memory(*texts: str) -> bool:
    words = "Memory allocation still failed|bad_alloc|(failed|unable) to allocate|MemoryError|Cannot allocate memory"
    return re.search(words, "\n".join(texts)) is not None


def _limit_words(limits: Limits) -> str:
    if limits.memory_bytes is None:
        return ""
    return (
        f"; it was allowed {limits.memory_bytes / 2**20:.0f} MiB: raise --memory-limit or use a smaller model"
    )


def _tail(log: tuple[str, ...]) -> str:
    return "\n".join(line for line in log[-8:] if line)


def _kill_group(pid: int) -> None:
    if hasattr(os, "killpg"):
        os.killpg(pid, signal.SIGKILL)
