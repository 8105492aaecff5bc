"""The n-th write, sync, rename or fork of a command fails, as on a failing disk: strace answers for the kernel."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from harness.records.history import History
from harness.records.store import load
from tests.faults.children import Inject
from tests.faults.commands import _blob, _card, _registry
from tests.faults.place import (
    HANG_S,
    Command,
    Injected,
    Place,
    arguments,
    audit,
    finish,
    start,
    torn_files,
)

RECORD: Final = Path(__file__).parents[1] / "records" / "v2-smollm2-135m.json"
CALLS: Final = {
    "write": ("write", ("ENOSPC", "EIO", "EDQUOT"), 60),
    "pwrite": ("pwrite64", ("ENOSPC", "EIO"), 30),
    "sync": ("fsync,fdatasync", ("EIO", "ENOSPC"), 12),
    "rename": ("rename,renameat,renameat2", ("EIO", "ENOSPC", "EACCES"), 6),
    "fork": ("fork,vfork,clone,clone3", ("EAGAIN", "ENOMEM"), 10),
}
"""By what fails: the calls, what they answer, and the latest of them that is tried."""


def can_trace() -> bool:
    """Whether strace is there and may trace."""
    if shutil.which("strace") is None:
        return False
    done = subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], capture_output=True, check=False)
    return done.returncode == 0


def failing(args: Sequence[str], call: str, error: str, number: int, *, cwd: Path, more: Mapping[str, str]) -> Command:
    """A command whose ``number``-th call of a kind, in each of its processes, answers with an error."""
    names, _, _ = CALLS[call]
    inject = [word for name in names.split(",") for word in ("-e", f"inject={name}:error={error}:when={number}")]
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={names}", *inject]
    process = subprocess.Popen(
        [*command, sys.executable, "-m", "harness", *args],
        cwd=cwd, env={**os.environ, **more}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=HANG_S)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        return Command(process.returncode, out, err, True)
    return Command(process.returncode, out, err, False)


def _drawn(draw: random.Random) -> tuple[str, str, int]:
    call = draw.choice(sorted(CALLS))
    _, errors, most = CALLS[call]
    return call, draw.choice(errors), draw.randint(1, most)


def _judged(ended: Command, what: tuple[str, str, int], *, lost: int, torn: int) -> Injected:
    """How a command came through: in words of its own, whatever failed."""
    named = "Traceback" not in ended.err and "nobody foresaw" not in ended.err
    call, error, number = what
    message = f"{call} {number} {error}: {ended.err.strip()[-400:]}"
    return Injected(f"status {ended.status}", message, named, lost, torn, ended.hung)


def in_run(place: Place, draw: random.Random) -> Injected:
    """In ``run``: what was in the history stays, what was told as done is somewhere, no file is half."""
    home, folder, what = place.folder(), place.folder(), _drawn(draw)
    history = History(home / "history.sqlite")
    before = load(RECORD)
    history.extend([before])
    ended = failing(
        arguments(place.model(), more=("--out", str(folder))), *what, cwd=folder, more={"EDGE_HARNESS_HOME": str(home)}
    )
    lost, torn = audit(history, {before.run_id})
    whole = {path.stem for path in [*folder.rglob("*.json"), *home.rglob("*.json")]}
    for record in ended.records():
        kept = any(str(record["run_id"]) in name for name in whole) or "printed only" in ended.err
        lost += not (kept or audit(history, {str(record["run_id"])})[0] == 0)
    return _judged(ended, what, lost=lost, torn=torn + torn_files(folder))


def in_update(place: Place, draw: random.Random) -> Injected:
    """In ``gate update``: the runs that the baseline had stay, and each of its files is whole."""
    home, folder, what = place.folder(), place.folder(), _drawn(draw)
    baseline = folder / "baseline"
    baseline.mkdir()
    text = RECORD.read_text()
    first = load(RECORD).run_id
    (baseline / f"{first}.json").write_text(text)
    (folder / "new.json").write_text(text.replace(first, f"{first[:-1]}x"))
    ended = failing(
        ["gate", "update", "new.json", "-o", "baseline"], *what, cwd=folder, more={"EDGE_HARNESS_HOME": str(home)}
    )
    lost = int(not (baseline / f"{first}.json").exists())
    lost += ended.status == 0 and len(list(baseline.glob("*.json"))) != 2
    return _judged(ended, what, lost=lost, torn=torn_files(baseline))


def in_learn(place: Place, draw: random.Random) -> Injected:
    """In ``learn``: what was learnt before can still be read, and learnt from again."""
    home, folder, what = place.folder(), place.folder(), _drawn(draw)
    more = {"EDGE_HARNESS_HOME": str(home)}
    words = ["learn", "--device", "rtx-4090-desktop"]
    finish(start([*words, "--line", "qwen3-8b Q4_K_M 5123 145.2"], cwd=folder, environment=more))
    ended = failing([*words, "--line", "qwen3-8b Q8_0 5200 90.5"], *what, cwd=folder, more=more)
    again = finish(start(words, cwd=folder, environment=more))
    return _judged(ended, what, lost=int(again.status != 0), torn=len(list(home.rglob("*.part"))))


def in_pull(place: Place, draw: random.Random) -> Injected:
    """In ``models pull``: a model's file is whole or not there."""
    home, cache, what = place.folder(), place.folder(), _drawn(draw)
    data = _blob(place, draw)
    registry = _registry(place.folder(), data)
    _card(home, data)
    more = {
        "EDGE_HARNESS_HOME": str(home),
        "EDGE_HARNESS_CACHE": str(cache),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(registry),
    }
    ended = failing(["models", "pull", "blob"], *what, cwd=home, more=more)
    found = list(cache.rglob("*.gguf"))
    torn = sum(path.read_bytes() != data for path in found)
    return _judged(ended, what, lost=int(ended.status == 0 and len(found) != 1), torn=torn)


KINDS: Final[dict[str, Inject]] = {
    "a call fails in run": in_run,
    "a call fails in gate update": in_update,
    "a call fails in learn": in_learn,
    "a call fails in models pull": in_pull,
}
