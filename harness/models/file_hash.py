"""SHA-256 of files, remembered by what the file system says of them: a model is read once, not in every run."""

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Final

from harness.core.errors import BadDataError, HarnessError, what_is_there
from harness.core.paths import cache_dir

_DIGITS: Final = 64


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits.

    Read again only when its size, its times or its identity changed.

    Raises:
        BadDataError: It cannot be read.
    """
    try:
        if not path.is_file():  # /dev/zero has no end, and a pipe may have no writer
            raise BadDataError(path, "", what_is_there(path), "a model file")
        state = path.stat()  # what stays of a file when it is renamed, and changes when it is written
        key = f"{state.st_dev}-{state.st_ino}-{state.st_size}-{state.st_mtime_ns}"
        with suppress(OSError, HarnessError):
            known = _note(key).read_text(errors="replace")
            if len(known) == _DIGITS:
                return known
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise BadDataError(path, "", f"unreadable ({error.strerror})", "a model file") from error
    with suppress(OSError, HarnessError):  # a full disk, or no cache, only costs another reading
        _note(key).write_text(digest)
    return digest


def _note(key: str) -> Path:
    """Where the digest of a file is kept."""
    folder = cache_dir() / "hashes"
    folder.mkdir(exist_ok=True)
    return folder / key
