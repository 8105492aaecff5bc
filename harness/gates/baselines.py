"""Runs that a gate compares with, kept beside the code: a folder of records, also as it was in another commit."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from harness.core.errors import CouldNotRunError, InputError, RefusedError
from harness.core.grouping import grouped
from harness.core.outside import output_of
from harness.core.record import Record
from harness.gates.pins import pins_of
from harness.gates.sittings import time_of
from harness.records.possible import impossible
from harness.records.store import decode, load, save

KEPT_RUNS: Final = 20
"""Runs of one kind that are kept: the spread learnt from more is no better."""
_TIMEOUT_S: Final = 60.0


def update(folder: Path, records: Iterable[Record]) -> tuple[int, int]:
    """Add good runs to a folder of records; of each kind the newest ``KEPT_RUNS`` stay.

    Returns:
        Runs added and runs removed.

    Raises:
        RefusedError: None of the runs ended well.
        BadDataError: A record in the folder is none.
    """
    good = [record for record in records if record.outcome == "ok" and not impossible(record)]
    if not good:
        raise RefusedError("no run that ended well, with figures that can be, to keep as the baseline")
    there = {record.run_id: record for path in sorted(folder.glob("*.json")) for record in [load(path)]}
    added = [record for record in good if record.run_id not in there]
    for record in added:
        save(record, folder / f"{record.run_id}.json")
    newest_last = sorted([*there.values(), *added], key=time_of)
    kinds = grouped(newest_last, lambda run: repr((run.workload, run.name, pins_of(run))))
    old = [each for runs in kinds.values() for each in runs[:-KEPT_RUNS]]
    for record in old:
        (folder / f"{record.run_id}.json").unlink(missing_ok=True)
    return len(added), len(old)


def at_commit(folder: str, commit: str) -> list[Record]:
    """Records of a folder of this repository as they were in a commit.

    Raises:
        CouldNotRunError: git is not there, this is no repository, or it knows no such commit or folder.
        InputError: The commit's name begins like an option.
    """
    if commit.startswith("-"):
        raise InputError(f"--against: found {commit!r}, expected a commit, branch or tag")
    names = _git("ls-tree", "-r", "-z", "--name-only", "--full-name", commit, "--", folder).split(b"\0")
    paths = [name.decode() for name in names if name.endswith(b".json")]
    if not paths:
        raise CouldNotRunError(f"{commit} has no record in {folder}: keep some with edge-harness gate update")
    return [decode(_git("show", f"{commit}:{path}"), f"{commit}:{path}") for path in paths]


def _git(*words: str) -> bytes:
    return output_of(("git", *words), f"git {words[0]}", timeout_s=_TIMEOUT_S)
