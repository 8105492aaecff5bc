"""SHA-256 of model files, remembered by what the file system says of them."""

import contextlib
import hashlib
from pathlib import Path

import msgspec

from harness.errors import BadDataError, CouldNotRunError
from harness.records.store import write_atomically

_ENTRIES_MAX = 500


def file_sha256(path: Path, *, cache: Path | None = None) -> str:
    """Hash of a file; with a JSON file as ``cache`` it is read again only when its size, time or identity changed.

    Raises:
        BadDataError: It cannot be read.
    """
    try:
        state = path.stat()
        key = f"{path.resolve()}|{state.st_dev}|{state.st_ino}|{state.st_size}|{state.st_mtime_ns}"
        known = _read(cache)
        if key in known:
            return known[key]
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadDataError(path, "", f"unreadable ({error.strerror})", "a model file") from error
    if cache is not None:
        newest = dict(list({**_read(cache), key: digest}.items())[-_ENTRIES_MAX:])
        with contextlib.suppress(CouldNotRunError):  # a full disk must not stop a run
            write_atomically(cache, msgspec.json.encode(newest))
    return digest


def _read(cache: Path | None) -> dict[str, str]:
    if cache is None:
        return {}
    try:
        return msgspec.json.decode(cache.read_bytes()[: 1 << 20], type=dict[str, str])
    except (OSError, msgspec.DecodeError):
        return {}  # a cache: absent or broken only costs a reading
