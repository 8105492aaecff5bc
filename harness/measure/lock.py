"""One measured run at a time on a machine: a lock file that the system lets go of when its holder dies."""

import contextlib
import os
import re
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Final

from harness.core.errors import CouldNotRunError
from harness.core.paths import home_dir

_POLL_S: Final = 0.2
_SHARED_FOLDERS: Final = ("/run/lock", "/var/lock")
_HELD: set[tuple[Path, int]] = set()
"""Locks that a thread of this process holds: what it measures inside a measurement needs no second one."""


def lock_path(place: str = "") -> Path:
    """The lock file of this machine, or of the target of that name: of all users here.

    Where ``EDGE_HARNESS_HOME`` names a home to keep apart, that home's.
    """
    label = re.sub(r"[^\w.]+", "-", place).strip("-")
    name = f"{label}.lock" if label else "lock"
    shared = (Path(name) for name in _SHARED_FOLDERS)
    folder = next((f for f in shared if os.access(f, os.W_OK) and f.stat().st_mode & stat.S_ISVTX), None)
    if os.environ.get("EDGE_HARNESS_HOME") or folder is None:
        return home_dir() / f"run.{name}"
    return folder / f"edge-harness.{name}"


@contextmanager
def machine_lock(
    path: Path, *, timeout_s: float = 3600.0, on_wait: Callable[[str], None] = lambda _who: None
) -> Iterator[None]:
    """Hold the lock for the body of the ``with``; a holder further up in this thread is not waited for.

    The file is made when absent, and never removed: removing it would let two holders in. Another holder's
    end is waited for, ``timeout_s`` at most, and ``on_wait`` is told once who holds it.

    Raises:
        CouldNotRunError: The wait took longer than ``timeout_s``, or there can be no lock file.
    """
    mine = path, threading.get_ident()
    if mine in _HELD:
        yield
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _opened(path)
    except OSError as error:
        raise CouldNotRunError(f"no lock file {path}: {error.strerror}") from error
    with file:
        if not _try_lock(file):
            on_wait(holder(path))
            until_s = time.monotonic() + timeout_s
            while not _try_lock(file):
                if time.monotonic() > until_s:
                    raise CouldNotRunError(
                        f"another measured run ({holder(path)}) held the machine for {timeout_s:g} s; end it first"
                    )
                time.sleep(_POLL_S)
        with contextlib.suppress(OSError):  # a full disk: the lock holds, its label is missing
            file.truncate(0)
            file.write(f"{os.getpid()}\n".encode())
        _HELD.add(mine)
        try:
            yield
        finally:
            _HELD.discard(mine)


def alone(say: Callable[[str], None], place: str = "") -> AbstractContextManager[None]:
    """Hold the lock of this machine, or of the target ``place``; ``say`` is told once who is waited for.

    All that is timed on a device does so: two people who share a phone take turns.
    """
    return machine_lock(lock_path(place), on_wait=lambda who: say(f"waiting for {who} to finish"))


def _opened(path: Path) -> IO[bytes]:
    """The lock file, unbuffered: what a full disk did not take must not come up again at the close.

    It may be another user's, who lets us read it; a link in a shared folder is never followed.
    """
    no_link = getattr(os, "O_NOFOLLOW", 0)
    # The file of another user in a folder with the sticky bit may be opened, and not with a wish to make it.
    making = 0 if path.exists() else os.O_CREAT
    try:
        descriptor = os.open(path, os.O_RDWR | making | no_link, 0o666)
    except PermissionError:
        return os.fdopen(os.open(path, os.O_RDONLY | no_link), "rb", buffering=0)
    with contextlib.suppress(OSError, AttributeError):  # whatever the mask: others wait for it too
        os.fchmod(descriptor, 0o666)
    return os.fdopen(descriptor, "r+b", buffering=0)


def holder(path: Path) -> str:
    """Who holds the lock, as far as it says: ``process 1234``."""
    with contextlib.suppress(OSError, ValueError):
        return f"process {int(path.read_text())}"
    return "another process"


def _try_lock(file: IO[bytes]) -> bool:
    """Lock it, until it is closed; False where another holder has it."""
    if sys.platform == "win32":
        import msvcrt

        file.seek(0)
        with contextlib.suppress(OSError):
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            return True
        return False
    import fcntl

    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:  # but on a file system without locks: better to run than not at all
        return not isinstance(error, BlockingIOError)
    return True
