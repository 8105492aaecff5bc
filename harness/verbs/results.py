"""What a user names as results: record files, folders of them, other tools' files, or runs of the history."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from harness.core.errors import BadDataError, RefusedError
from harness.core.foreign import json_of
from harness.core.printable import MESSAGE_MAX, clean
from harness.core.record import Record
from harness.measure.pipeline import open_history
from harness.records.imports import read_results
from harness.records.manifest import ENDING, Manifest, load_manifest
from harness.records.store import from_document

_ENDINGS: Final = frozenset({".json", ".jsonl"})
_MOST_FILES: Final = 20_000
ANSWERS: Final = "gate-answers.json"
"""What gates keep of their own answers beside the results."""


def gather(references: Iterable[str]) -> list[Record]:
    """Records of all references (files, folders, beginnings of identifiers), each run once, in the order given.

    Of a folder every file of results is read, those of its subfolders too; a warning names what is none.

    Raises:
        BadDataError: A file is no results, or there is neither a file nor a run of that name.
        RefusedError: Two runs that differ have one identifier.
    """
    records: dict[str, Record] = {}
    for reference in references:
        for record in _of(reference):
            if records.setdefault(record.run_id, record) != record:
                raise RefusedError(
                    f"{reference}: two different runs are called {record.run_id}: which one is meant?"
                )
    return list(records.values())


def _of(reference: str) -> list[Record]:
    path = Path(reference)
    if path.is_dir():
        return [record for file in _files_in(path) for record in read_results(file)]
    if path.exists() or path.suffix or "/" in reference:
        return read_results(path)
    history = open_history()
    if not history.path.exists():
        raise BadDataError(
            reference, "", "no such file, and no history yet", "a record file or a run of the history"
        )
    return [history.get(reference)]


def manifests_in(references: Iterable[str]) -> list[Manifest]:
    """What commands were asked to measure, as the folders among some references keep it.

    Raises:
        BadDataError: A manifest is none.
    """
    folders = [Path(reference) for reference in references if Path(reference).is_dir()]
    return [
        load_manifest(path)
        for folder in folders
        for path in sorted(folder.rglob(f"*{ENDING}"))
        if path.is_file()
    ]


def _files_in(folder: Path) -> list[Path]:
    """Files of results in a folder and below it, by name; a warning names what is hidden, a link, or none."""
    files: list[Path] = []
    others: list[str] = []
    for number, path in enumerate(folder.rglob("*")):
        if number > _MOST_FILES:
            raise BadDataError(folder, "", f"more than {_MOST_FILES} files", "a folder of results")
        within = path.relative_to(folder)
        if path.is_dir() and not path.is_symlink():
            continue
        if path.name == ANSWERS or path.suffix == ENDING:
            continue
        is_result = path.suffix.lower() in _ENDINGS
        if any(part.startswith(".") for part in within.parts):
            others += [f"{within} (hidden)"] * is_result
        elif path.is_symlink():
            others.append(f"{within} (a link)")
        elif is_result:
            files.append(path)
        else:
            others.append(str(within))
    if not files and not any(folder.rglob(f"*{ENDING}")):
        raise BadDataError(folder, "", "a folder without .json files", "run records")
    if others:
        warnings.warn(clean(f"{folder}: not read: {', '.join(sorted(others))}", MESSAGE_MAX), stacklevel=2)
    return sorted(files)


def single_record(output: bytes, source: str) -> Record:
    """The one record that ``run MODEL --json`` prints.

    Raises:
        BadDataError: The output is something else, or several records.
    """
    document = json_of(output, source, "one run record")
    if isinstance(document, list):
        if len(document) != 1:
            raise BadDataError(source, "", f"{len(document)} records", "one: name one model and one cell")
        document = document[0]
    return from_document(document, source)
