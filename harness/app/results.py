"""What a user names as results: record files, folders of them, other tools' files, or runs of the history."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from harness.catalog.paths import home_dir
from harness.domain.record import RunRecord
from harness.errors import BadDataError
from harness.records.history import History
from harness.records.imports import read_results

_HISTORY: Final = "history.sqlite"


def gather(references: Iterable[str]) -> list[RunRecord]:
    """Records of all references, each run once, in the order given.

    Args:
        references: Paths of files or folders, or (the beginnings of) identifiers in the history.

    Raises:
        BadDataError: A file is no results, or there is neither a file nor a run of that name.
    """
    found: dict[str, RunRecord] = {}
    for reference in references:
        for record in _of(reference):
            found.setdefault(record.run_id, record)
    return list(found.values())


def _of(reference: str) -> list[RunRecord]:
    path = Path(reference)
    if path.is_dir():
        files = sorted(path.glob("*.json"))
        if not files:
            raise BadDataError(path, "", "a folder without .json files", "run records")
        return [record for file in files for record in read_results(file)]
    if path.exists() or path.suffix or "/" in reference:
        return read_results(path)
    history = home_dir() / _HISTORY
    if not history.exists():
        raise BadDataError(reference, "", "no such file, and no history yet", "a record file or a run of the history")
    return [History(history).get(reference)]
