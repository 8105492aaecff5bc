"""What runs in the child process of a measured job: started by its path, told what to do on its standard input.

The first line of standard input is the job. After it, standard input stays open for as long as the parent
lives: its end means that the parent is gone, and then so is this process, with everything it started.
"""

import contextlib
import faulthandler
import inspect
import json
import os
import signal
import sys
import threading
import traceback
from importlib import import_module
from typing import Any

EXIT_TOLD = 4
"""The job failed and said why in its events."""
EXIT_UNTOLD = 70
"""The job failed and even its events could not be written (a full disk)."""


def main() -> None:
    """Run the job on standard input and leave without running destructors: an engine may hang in them."""
    faulthandler.enable()
    line = sys.stdin.buffer.readline()
    if not line:
        os._exit(EXIT_UNTOLD)
    job: dict[str, Any] = json.loads(line)
    sys.path[:] = job["sys_path"]
    threading.Thread(target=_watch_parent, name="parent-watch", daemon=True).start()
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if job["cpus"]:
        os.sched_setaffinity(0, job["cpus"])
    status = _run(job)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _run(job: dict[str, Any]) -> int:
    descriptor = os.open(job["events"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def emit(event: str, data: Any = None) -> None:
        import msgspec

        line = msgspec.json.encode({"event": event, "data": data}) + b"\n"
        while line:  # a full disk may take half a line; the parent drops a line without its end
            line = line[os.write(descriptor, line) :]

    try:
        module, _, function = job["target"].partition(":")
        target = getattr(import_module(module), function)
        target(_typed(target, job["arguments"]), emit)
        emit("end")
    except BaseException as error:  # noqa: BLE001  the record must say what happened, whatever it was
        traceback.print_exc()
        with contextlib.suppress(OSError):
            emit(
                "error",
                {"kind": type(error).__name__, "outcome": outcome_of(error), "detail": words_of(error, job)},
            )
            return EXIT_TOLD
        return EXIT_UNTOLD
    return 0


def _typed(target: Any, arguments: Any) -> Any:
    """The arguments as the job type of the function's first parameter.

    A parameter without a type leaves the arguments as they are.
    """
    import msgspec

    kind = next(iter(inspect.signature(target, eval_str=True).parameters.values())).annotation
    return msgspec.convert(arguments, Any if kind is inspect.Parameter.empty else kind)


def outcome_of(error: BaseException) -> str:
    """Outcome that an exception of the job stands for."""
    if isinstance(error, MemoryError):
        return "out of memory"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return str(getattr(error, "outcome", "failed"))


def words_of(error: BaseException, job: dict[str, Any]) -> str:
    """What an error says; one that nobody raised on purpose with the runtime, the file and the line that it comes from."""
    from harness.core.errors import HarnessError
    from harness.core.plugins import crash_words

    if isinstance(error, (HarnessError, MemoryError, KeyboardInterrupt)):
        return str(error)
    runtime = job["arguments"].get("runtime", "") if isinstance(job["arguments"], dict) else ""
    return f"{runtime}: {crash_words(error)}" if runtime else crash_words(error)


def _watch_parent() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(EXIT_UNTOLD)


if __name__ == "__main__":
    main()
