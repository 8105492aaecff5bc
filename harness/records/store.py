"""Records as files: written whole or not at all, read strictly, of this schema version alone.

A record may come from a stranger: its size and its numbers are bounded, every key must be known, nothing in
it is ever executed.
"""

import contextlib
import os
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from harness.domain.foreign import MOST_BYTES, json_of, read_limited, say, typed
from harness.domain.record import SCHEMA_VERSION, RunRecord
from harness.errors import BadDataError, CouldNotRunError

RECORD_MAX_BYTES: Final = MOST_BYTES
_DECODER: Final = msgspec.json.Decoder(RunRecord)


def encode(record: RunRecord) -> bytes:
    """A record as one JSON document."""
    return msgspec.json.encode(record)


def decode(data: bytes, source: Path | str) -> RunRecord:
    """A record from JSON.

    Raises:
        BadDataError: It is too large, no JSON, of another schema version, or breaks the schema; names the
            field.
    """
    if len(data) > RECORD_MAX_BYTES:
        raise BadDataError(source, "", f"{len(data)} bytes", f"at most {RECORD_MAX_BYTES}")
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        record = _DECODER.decode(data)
        if record.schema_version == SCHEMA_VERSION:  # the long way below finds what is wrong
            _check(record, source)
            return record
    return from_document(json_of(data, source, "a run record"), source)


def from_document(document: Any, source: Path | str) -> RunRecord:
    """The same from a JSON document already parsed."""
    if not isinstance(document, dict):
        raise BadDataError(source, "", type(document).__name__, "a JSON object: a run record")
    version = document.get("schema_version")
    if version != SCHEMA_VERSION:
        expected = f"{SCHEMA_VERSION}: measure again what is older, update edge-harness to read what is newer"
        raise BadDataError(source, "schema_version", say(version), expected)
    record = typed(document, RunRecord, source)
    _check(record, source)
    return record


def save(record: RunRecord, path: Path) -> None:
    """Write a record: after a crash at any moment the file is the old one or the new one.

    Raises:
        CouldNotRunError: It could not be written; no half of it is left behind.
    """
    write_atomically(path, msgspec.json.format(encode(record), indent=1) + b"\n")


def load(path: Path) -> RunRecord:
    """Read a record; BadDataError where there is none, or it breaks the schema."""
    return decode(read_limited(path), path)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` in one step: temporary file beside it, flushed to disk, then renamed.

    Raises:
        CouldNotRunError: It could not be written; the temporary file is removed.
    """
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)
        Path(temporary).replace(path)
        with contextlib.suppress(
            OSError
        ):  # the rename itself must reach the disk; not every system can open a folder
            descriptor = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    except BaseException as error:  # Ctrl-C too leaves no half of it behind
        if temporary:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
        if isinstance(error, OSError):
            raise CouldNotRunError(f"could not write {path}: {error.strerror}") from error
        raise


def _check(record: RunRecord, source: Path | str) -> None:
    """What types cannot say."""
    try:
        datetime.fromisoformat(record.created)
    except ValueError:
        raise BadDataError(
            source, "created", say(record.created), "a time such as 2026-01-31T12:00:00Z"
        ) from None
    if any(0 < sample.duration_s < 1e-9 for sample in record.samples):  # a rate of it would be no number
        raise BadDataError(
            source, "samples", "a time below a nanosecond", "0, or a time that something may take"
        )
