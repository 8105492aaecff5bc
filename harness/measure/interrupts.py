"""What ends a command from outside, the same wherever it comes from: Ctrl-C, a stopped service, a closed terminal.

The first such signal raises KeyboardInterrupt in the main thread: the child ends, the record says so, and the
exit status is the signal's. A second one ends the process at once. As process 1 of a container, whose signals
the kernel drops where nobody asked for them, it works alike.
"""

import signal
from typing import Any, Final

_SIGNALS: Final = ("SIGINT", "SIGTERM", "SIGHUP")
_received: list[signal.Signals] = []


def listen() -> None:
    """Take these signals from now on.

    One that the starter ignores (``nohup``, a shell's background job) stays so.
    """
    for name in _SIGNALS:
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def _end(number: int, _frame: Any) -> None:
    _received.append(signal.Signals(number))
    signal.signal(number, signal.SIG_DFL)
    raise KeyboardInterrupt


def reason() -> str:
    """What ended it, for a record."""
    if _received:
        return f"ended by {_received[0].name}"
    return "interrupted"


def exit_status() -> int:
    """The exit status of a command that was interrupted."""
    return 128 + (_received[0] if _received else signal.SIGINT)
