"""Builds of llama.cpp that are fetched for this machine: a folder with a library for each instruction set.

``data/engines.csv`` pins each by its digest. One engine at a time lies in ``cache_dir()/engine``; it comes
there by one rename, after its archive has been found right and its library has answered. Archives are
strangers': no more is read than the table says, no more unpacked than such archives hold, and each name
becomes one file of that one folder.
"""

import hashlib
import os
import platform
import shutil
import stat
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import IO, Final, TypeVar

import msgspec

from harness.core.base import Frozen
from harness.core.errors import FetchError, RefusedError, UnknownNameError
from harness.core.foreign import inside, json_in, typed
from harness.core.outside import output_of
from harness.core.paths import cache_dir, cache_place
from harness.core.progress import Progress
from harness.core.tables import columns_of, shipped_rows
from harness.core.units import MIB
from harness.models.fetch import check_room, only_one
from harness.models.fetch_registry import DAMAGED, copy_within
from harness.models.hub_client import download

Answer = TypeVar("Answer")
RELEASES: Final = "https://github.com/ggml-org/llama.cpp/releases/download/b11146"
MIRROR_VARIABLE: Final = "EDGE_HARNESS_ENGINE_URL"
"""Names another address that has the same archives; their digests stay."""
_SILENCE_S: Final = 10.0
"""Without a byte from the server: the next source is tried."""
_NPM_S: Final = 300.0
_MOST_FILES: Final = 400
_MOST_RATIO: Final = 8
"""Bytes unpacked over those of the archive: 3 to 4 in those that are known."""
_NOTE: Final = "engine.json"
_MACHINES: Final = {"amd64": "x86_64", "aarch64": "arm64"}


class Source(StrEnum):
    """Who has an archive."""

    RELEASE = "release"
    NPM = "npm"


class Build(Frozen):
    """One archive; ``place`` is its name under :data:`RELEASES`, or ``package@version`` for npm."""

    system: str
    machine: str
    api: str
    source: Source
    place: str
    size_bytes: int
    digest: str

    @property
    def title(self) -> str:
        """What a record calls it: llama.cpp's build, the api and where it came from."""
        return f"llama.cpp b11146 for {self.api} ({self.source}: {self.place})"


def builds() -> list[Build]:
    """All builds that are known, as ``data/engines.csv`` has them.

    Raises:
        BadDataError: A slip in the table, or two builds of one source for the same machine.
    """
    path = "data/engines.csv"
    rows = shipped_rows(path, columns=columns_of(Build), unique=("system machine api source", "digest"))
    return [typed(dict(row), Build, path, strict=False) for row in rows]


def all_here() -> list[Build]:
    """Those for this system and machine, the one to take first first."""
    machine = platform.machine().lower()
    machine = _MACHINES.get(machine, machine)
    return [build for build in builds() if (build.system, build.machine) == (sys.platform, machine)]


def builds_here(api: str = "") -> list[Build]:
    """Those for this system and machine, of that api or of the one that a build without more has.

    Raises:
        RefusedError: None is known for this machine.
        UnknownNameError: None is known for that api.
    """
    here = all_here()
    if not here:
        raise RefusedError(f"no build of llama.cpp is known for {sys.platform} on {platform.machine()}")
    wanted = api or here[0].api
    chosen = [build for build in here if build.api == wanted]
    if not chosen:
        raise UnknownNameError("api", wanted, dict.fromkeys(build.api for build in here))
    return chosen


def engine_folder() -> Path:
    """Where the engine lies that was pulled; nothing is there before, and no folder is made."""
    return cache_place() / "engine"


def pulled(folder: Path | None = None) -> Build | None:
    """What was pulled; None where nothing was."""
    note = (folder or engine_folder()) / _NOTE
    if not note.is_file():
        return None
    return typed(json_in(note, "what `engines pull` wrote; pull again", 1 << 16), Build, note)


def install(build: Build, ask: Callable[[Path], Answer], progress: Progress) -> Answer:
    """Fetch, verify and unpack a build, put it in the place of the one before, and return what ``ask`` found.

    ``ask`` raises where the libraries in a folder do not run here: the old ones then stay.

    Raises:
        FetchError: It cannot be had, or is not what the table says.
        RefusedError: No room on the disk, or another pull is going on.
    """
    folder = cache_dir() / engine_folder().name
    with only_one(folder.with_suffix(".lock")):
        staging = folder.with_suffix(".staging")
        old = folder.with_suffix(".old")
        _clear(staging, old)
        staging.mkdir(parents=True)
        try:
            check_room(staging, build.size_bytes * (1 + _MOST_RATIO))
            archive = _fetched(build, staging, progress)
            _verify(archive, build)
            unpacked = staging / "files"
            unpacked.mkdir()
            unpack(archive, unpacked, build.size_bytes * _MOST_RATIO)
            (unpacked / _NOTE).write_bytes(msgspec.json.encode(build))
            answer = ask(unpacked)
            if folder.exists():
                folder.rename(old)
            unpacked.rename(folder)
        finally:
            _clear(staging, old)
    return answer


def remove() -> bool:
    """Delete what was pulled; whether there was anything."""
    folder = cache_dir() / engine_folder().name
    there = folder.exists()
    with only_one(folder.with_suffix(".lock")):
        _clear(folder)
    return there


def _clear(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _fetched(build: Build, staging: Path, progress: Progress) -> Path:
    """The archive: of a release ``size_bytes`` and no more."""
    if build.source is Source.NPM:
        return _from_npm(build.place, staging)
    url = f"{os.environ.get(MIRROR_VARIABLE, RELEASES).rstrip('/')}/{build.place}"
    path = staging / build.place
    if not url.startswith(("https://", "http://")):
        raise RefusedError(f"{MIRROR_VARIABLE}: found {url}, expected an address that begins with https://")
    download(url, url, path, build.size_bytes, progress, silence_s=_SILENCE_S)
    return path


def _from_npm(package: str, staging: Path) -> Path:
    """An archive that the npm client fetches; no script of it is run."""
    npm = shutil.which("npm")
    if npm is None:
        raise FetchError(f"{package}: there is no npm client here")
    command = [npm, "pack", package, "--ignore-scripts", "--silent", "--pack-destination", str(staging)]
    output_of(command, f"{package}: npm could not fetch it", timeout_s=_NPM_S, fault=FetchError)
    archives = list(staging.glob("*.tgz"))
    if len(archives) != 1:
        raise FetchError(f"{package}: npm fetched {len(archives)} archives, expected one")
    return archives[0]


def _verify(archive: Path, build: Build) -> None:
    """Refuse (FetchError) an archive whose size or digest is another."""
    if (size := archive.stat().st_size) != build.size_bytes:
        raise FetchError(f"{build.place}: found {size} bytes, expected {build.size_bytes}")
    name, _, expected = build.digest.partition(":")
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, name).hexdigest()
    if found != expected:
        raise FetchError(f"{build.place}: found {name} {found}, expected {expected}")


def unpack(archive: Path, folder: Path, most_bytes: int) -> None:
    """Unpack every file of an archive into one folder, named by the last part of its path.

    A link to another file of the archive stays a link; a link that leads nowhere is left out.

    Raises:
        FetchError: It is damaged, holds more than it may, or two files of one name.
    """
    room = most_bytes
    try:
        with _members(archive) as members:
            for count, (name, target, file) in enumerate(members):
                if count >= _MOST_FILES:
                    raise FetchError(f"{archive.name}: found more than {_MOST_FILES} files")
                base = PurePosixPath(name).name
                path = inside(folder, base, archive.name)
                if os.path.lexists(path):
                    raise FetchError(f"{archive.name}: found two files named {base}")
                if file is None:
                    path.symlink_to(inside(folder, PurePosixPath(target).name, archive.name).name)
                    continue
                with path.open("xb") as out:
                    room = copy_within(
                        file, out, room, f"{archive.name}: unpacks to more than {most_bytes / MIB:.0f} MiB"
                    )
                path.chmod(0o755)
    except (tarfile.TarError, *DAMAGED) as error:
        raise FetchError(f"{archive.name}: {error}") from error
    for path in folder.iterdir():
        if not path.exists():  # a link to a file that is not here, or to itself
            path.unlink()


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[tuple[str, str, IO[bytes] | None]]]:
    """Name, target and contents of each file of a tar or zip archive; a link has a target and no contents."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as zipped:
            plain = [
                i for i in zipped.infolist() if not i.is_dir() and not stat.S_ISLNK(i.external_attr >> 16)
            ]
            yield ((info.filename, "", zipped.open(info)) for info in plain)
        return
    with tarfile.open(archive, "r:gz") as tar:
        wanted = (member for member in tar if member.isfile() or member.issym())
        yield ((m.name, m.linkname, None) if m.issym() else (m.name, "", tar.extractfile(m)) for m in wanted)
