"""Systems that are no Python: a process that answers lines of JSON, or an HTTP server that answers POSTed JSON.

A subclass names the command or the address beside its kinds of cases and its scores. Each case goes out as one JSON
object, on a line of the process's input or as the body of a request; the answer is one JSON object.
"""

import atexit
import subprocess
import threading
from collections.abc import Sequence
from typing import Any, ClassVar
from urllib.request import Request, urlopen

import msgspec

from harness.core.errors import EngineError
from harness.core.foreign import json_of
from harness.core.result import PartMemory
from harness.measure.memory_watch import read_memory
from harness.workloads.system import Context, System

_MOST_BYTES = 16 << 20


class ProcessSystem(System):
    """A system that answers elsewhere.

    Attributes:
        command: Words that start the process, once a run; its error output is shown.
        url: Address of the server, if there is no command.
        timeout_s: Longest time of an answer.
    """

    command: ClassVar[Sequence[str]] = ()
    url: ClassVar[str] = ""
    timeout_s: ClassVar[float] = 60.0

    def prepare(self, context: Context) -> Any:
        """The process, started; None for a server (OSError: it does not start)."""
        if not self.command:
            return None
        process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        atexit.register(process.kill)
        return process

    def step(self, state: Any, case: Any) -> Any:
        """Send a case, and wait for its answer.

        Raises:
            EngineError: The process ended, the server failed, or neither answered in time.
            BadDataError: The answer is no JSON object.
        """
        line = msgspec.json.encode(case)
        called = self.url or self.command[0]
        late = threading.Timer(self.timeout_s, state.kill if state else int)
        late.start()
        try:
            if state:
                state.stdin.write(line + b"\n")
                state.stdin.flush()
                told = state.stdout.readline(_MOST_BYTES)
            else:
                with urlopen(Request(self.url, line), timeout=self.timeout_s) as answer:  # noqa: S310  # the author's own
                    told = answer.read(_MOST_BYTES)
        except OSError as error:
            raise EngineError(f"{called}: {error}", "failed") from error
        finally:
            late.cancel()
        if not told:
            raise EngineError(f"{called} ended, or gave no answer in {self.timeout_s:g} s", "failed")
        return json_of(told, called, "a JSON object")

    def memory(self, state: Any) -> Sequence[PartMemory]:
        """Memory of the process now; nothing of a server."""
        reading = read_memory(state.pid) if state else None
        return [PartMemory(part="process", anonymous_bytes=reading.anonymous_bytes)] if reading else []
