"""Records as files: written whole or not at all, read strictly, of this schema version alone.

A record may come from a stranger: its size and its numbers are bounded, every key must be known, nothing in
it is ever executed.
"""

import contextlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from harness.core.errors import BadDataError, CouldNotRunError
from harness.core.foreign import MOST_BYTES, json_of, read_limited, say, typed
from harness.core.record import SCHEMA_VERSION, Record

RECORD_MAX_BYTES: Final = MOST_BYTES


def encode(record: Record) -> bytes:
    """A record as one JSON document."""
    return msgspec.json.encode(record)


def decode(data: bytes, source: Path | str) -> Record:
    """A record from JSON.

    Raises:
        BadDataError: It is too large, no JSON, of another schema version, or breaks the schema; names the
            field.
    """
    if len(data) > RECORD_MAX_BYTES:
        raise BadDataError(source, "", f"{len(data)} bytes", f"at most {RECORD_MAX_BYTES}")
    return from_document(json_of(data, source, "a run record"), source)


def from_document(document: Any, source: Path | str) -> Record:
    """The same from a JSON document already parsed."""
    if not isinstance(document, dict):
        raise BadDataError(source, "", type(document).__name__, "a JSON object: a run record")
    version = document.get("schema_version")
    if version != SCHEMA_VERSION:
        expected = f"{SCHEMA_VERSION}: measure again what is older, update edge-harness to read what is newer"
        raise BadDataError(source, "schema_version", say(version), expected)
    record = typed(document, Record, source)
    try:
        datetime.fromisoformat(record.created)
    except ValueError:
        expected = "a time such as 2026-01-31T12:00:00Z"
        raise BadDataError(source, "created", say(record.created), expected) from None
    if any(0 < sample.duration_s < 1e-9 for sample in record.samples):  # a rate of it would be no number
        raise BadDataError(
            source, "samples", "a time below a nanosecond", "0, or a time that something may take"
        )
    return record


def save(record: Record, path: Path) -> None:
    """Write a record: after a crash at any moment the file is the old one or the new one.

    Raises:
        CouldNotRunError: It could not be written; no half of it is left behind.
    """
    write_atomically(path, msgspec.json.format(encode(record), indent=1) + b"\n")


def load(path: Path) -> Record:
    """Read a record; BadDataError where there is none, or it breaks the schema."""
    return decode(read_limited(path), path)


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to write to, which takes its place at the end; after an error nothing of it stays.

    Raises:
        CouldNotRunError: The folder cannot be made, or the file not be put in place.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        raise CouldNotRunError(f"could not write {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def write_atomically(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` in one step: temporary file beside it, flushed to disk, then renamed.

    Raises:
        CouldNotRunError: It could not be written; the temporary file is removed.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise CouldNotRunError(f"could not write {path}: {error.strerror}") from error
    finally:  # Ctrl-C too leaves no half of it behind
        with contextlib.suppress(OSError):
            temporary.unlink()
