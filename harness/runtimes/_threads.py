"""How many threads a run uses when nobody says: the rule of ``harness.cpus``, or what was measured."""

import contextlib
import hashlib
from pathlib import Path

from harness.catalog.paths import home_dir
from harness.cpus import Cores, cores, read_int


def default_thread_count() -> int:
    """Threads of runs, predictions and probes alike: as many as were fastest here, else what the rule says."""
    here = cores()
    return (len(here.choices) > 1 and read_int(_place(here))) or here.thread_count


def keep_thread_count(here: Cores, count: int) -> None:
    """Remember the number of threads that was fastest on these cores."""
    with contextlib.suppress(OSError):  # a home that cannot be written: the rule goes on holding
        _place(here).parent.mkdir(parents=True, exist_ok=True)
        _place(here).write_text(f"{count}\n")


def _place(here: Cores) -> Path:
    return home_dir() / "threads" / hashlib.sha256(repr(here).encode()).hexdigest()[:12]
