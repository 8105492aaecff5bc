"""What a command was asked to measure, written before it begins: a run that leaves no record still leaves this.

A gate judges what was meant to run. A folder of results holds, beside its records, one file for each command that wrote
there: its words, the models it was asked for, how it ended and which records it made.
"""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from harness import __version__
from harness.core.base import Frozen
from harness.core.errors import BadDataError
from harness.core.foreign import json_in, typed
from harness.core.record import Record
from harness.records.store import write_atomically

ENDING: Final = ".manifest"
"""Ending of the file's name; its content is JSON."""
MANIFEST_VERSION: Final = 1
_MANIFEST_MAX_BYTES: Final = 1 << 20


class Manifest(Frozen):
    """One command that measured, or meant to.

    Attributes:
        created: When it began, RFC 3339, UTC.
        command: Its words, the verb first.
        asked: Models, files or servers that it was asked to measure.
        exit_status: How it ended; None while it runs, and for good where the process was killed.
        error: Why it ended without its records, in a sentence.
        records: Identifiers of the records it made, in their order.
    """

    manifest_version: int
    created: str
    command: tuple[str, ...]
    asked: tuple[str, ...]
    harness_version: str
    exit_status: int | None = None
    error: str = ""
    records: tuple[str, ...] = ()

    @property
    def subject(self) -> tuple[str, ...]:
        """What is measured, whatever the settings: a newer command of one subject stands in place of an older one."""
        return (*self.command[:1], *self.asked)

    @property
    def words(self) -> str:
        """The command as it was typed."""
        return " ".join(("edge-harness", *self.command))

    @property
    def fault(self) -> str:
        """Why it is no evidence by itself; empty where it ended with records."""
        if self.exit_status is None:
            return f"`{self.words}` began at {self.created} and has not ended"
        if not self.records:
            why = self.error or f"exit status {self.exit_status}"
            return f"`{self.words}` made no record at {self.created}: {why}"
        return ""


_open: list[list[str]] = []
"""Identifiers of the records of the command that is under way."""


def noted(record: Record) -> None:
    """Add a record to the manifest of the command that is under way, if there is one."""
    if _open and record.run_id not in _open[-1]:
        _open[-1].append(record.run_id)


@contextmanager
def manifest(folder: Path, command: Sequence[str], asked: Sequence[str]) -> Iterator[None]:
    """Write the manifest of a command into ``folder``, and write it anew when the command ends, however it ends.

    Raises:
        CouldNotRunError: The folder cannot be written.
    """
    now = datetime.now(UTC)
    path = folder / f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}{ENDING}"
    begun = Manifest(
        manifest_version=MANIFEST_VERSION,
        created=now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        command=tuple(command),
        asked=tuple(asked),
        harness_version=__version__,
    )
    _write(path, begun)
    made: list[str] = []
    _open.append(made)
    status, error = 0, ""
    try:
        yield
    except BaseException as fault:  # what stops it is told, and goes on
        status = getattr(fault, "exit_code", None) or 1
        error = " ".join((str(fault) or type(fault).__name__).split())[:500]
        raise
    finally:
        _open.remove(made)
        _write(path, begun.replace(exit_status=int(status), error=error, records=tuple(made)))


def _write(path: Path, written: Manifest) -> None:
    write_atomically(path, msgspec.json.format(msgspec.json.encode(written), indent=1) + b"\n")


def load_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        BadDataError: It is none, or of another version.
    """
    found = typed(json_in(path, "a manifest", _MANIFEST_MAX_BYTES), Manifest, path)
    if found.manifest_version != MANIFEST_VERSION:
        raise BadDataError(path, "manifest_version", str(found.manifest_version), str(MANIFEST_VERSION))
    return found
