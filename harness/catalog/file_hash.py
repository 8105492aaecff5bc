"""SHA-256 of files, remembered by what the file system says of them: a model is read once, not in every run."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from harness.catalog.paths import cache_dir
from harness.errors import BadDataError, HarnessError, what_is_there

_ENTRIES_MAX: Final = 500


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits.

    Read again only when its size, its times or its identity changed.

    Raises:
        BadDataError: It cannot be read.
    """
    try:
        if not path.is_file():  # /dev/zero has no end, and a pipe may have no writer
            raise BadDataError(path, "", what_is_there(path), "a model file")
        key = _key(path)
        if known := _notes().get(key):
            return known
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise BadDataError(path, "", f"unreadable ({error.strerror})", "a model file") from error
    _note(key, digest)
    return digest


def _key(path: Path) -> str:
    """What stays of a file when it is renamed, and changes when it is written."""
    state = path.stat()
    return f"{state.st_dev}|{state.st_ino}|{state.st_size}|{state.st_mtime_ns}"


def _note(key: str, sha256: str) -> None:
    with suppress(OSError, HarnessError):  # a full disk, or no cache, only costs another reading
        newest = dict(list({**_notes(), key: sha256}.items())[-_ENTRIES_MAX:])
        fresh = _file().with_suffix(f".{os.getpid()}.part")
        fresh.write_bytes(msgspec.json.encode(newest))
        fresh.replace(_file())


def _notes() -> dict[str, str]:
    with suppress(OSError, HarnessError, msgspec.DecodeError):  # absent or broken: read the file itself
        return msgspec.json.decode(_file().read_bytes()[: 1 << 20], type=dict[str, str])
    return {}


def _file() -> Path:
    return cache_dir() / "file-hashes.json"
