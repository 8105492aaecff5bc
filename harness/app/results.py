"""What a user names as results: record files, folders of them, other tools' files, or runs of the history."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from harness.domain.foreign import json_of
from harness.domain.record import RunRecord
from harness.errors import BadDataError, HarnessError
from harness.measure.pipeline import open_history
from harness.records.imports import read_results
from harness.records.store import from_document


def gather(references: Iterable[str]) -> list[RunRecord]:
    """Records of all references (files, folders, beginnings of identifiers), each run once, in the order given.

    Raises:
        BadDataError: A file is no results, or there is neither a file nor a run of that name.
    """
    records: dict[str, RunRecord] = {}
    for reference in references:
        for record in _of(reference):
            records.setdefault(record.run_id, record)
    return list(records.values())


def ladders() -> list[RunRecord]:
    """What ladders on record measured of quality, newest first; none where no history can be read."""
    with suppress(HarnessError):
        history = open_history()
        return list(history.records(workload="quality")) if history.path.exists() else []
    return []


def _of(reference: str) -> list[RunRecord]:
    path = Path(reference)
    if path.is_dir():
        files = sorted(path.glob("*.json"))
        if not files:
            raise BadDataError(path, "", "a folder without .json files", "run records")
        return [record for file in files for record in read_results(file)]
    if path.exists() or path.suffix or "/" in reference:
        return read_results(path)
    history = open_history()
    if not history.path.exists():
        raise BadDataError(reference, "", "no such file, and no history yet", "a record file or a run of the history")
    return [history.get(reference)]


def single_record(output: bytes, source: str) -> RunRecord:
    """The one record that ``run MODEL --json`` prints; BadDataError where it printed something else, or several."""
    document = json_of(output, source, "one run record")
    if isinstance(document, list):
        if len(document) != 1:
            raise BadDataError(source, "", f"{len(document)} records", "one: name one model and one cell")
        document = document[0]
    return from_document(document, source)
