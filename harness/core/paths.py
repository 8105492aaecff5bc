"""Where data files, downloads and a user's own files lie."""

import csv
import os
import warnings
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

from platformdirs import user_cache_path, user_data_path

from harness.core.errors import BadDataError, CouldNotRunError, RefusedError

Kind = Literal["devices", "models"]


@cache
def data_root(kind: Kind) -> Traversable:
    """Directory of the ``kind`` data files, shipped with the package or in the checkout."""
    shipped = files("harness") / "data" / kind
    if shipped.is_dir():
        return shipped
    return Path(__file__).parents[2] / kind


def cache_dir() -> Path:
    """Folder for what can be fetched again: ``EDGE_HARNESS_CACHE``, else the system's own; it is made if absent.

    Raises:
        CouldNotRunError: The folder cannot be made.
    """
    return _made(cache_place(), "EDGE_HARNESS_CACHE")


def cache_place() -> Path:
    """Where :func:`cache_dir` lies; made by nobody here."""
    return _expanded(os.environ.get("EDGE_HARNESS_CACHE") or user_cache_path("edge-harness", appauthor=False))


def home_dir() -> Path:
    """Folder for the user's own history, devices and models: ``EDGE_HARNESS_HOME``, else the system's.

    A folder that is absent is made at the first call.

    Raises:
        CouldNotRunError: The folder cannot be made.
    """
    return _made(_home(), "EDGE_HARNESS_HOME")


def data_files(kind: Kind) -> dict[str, Traversable]:
    """Every file of that kind by its stem; a user's own file in ``home_dir()`` wins over a shipped one.

    Makes no folder, so that listing works where nothing may be written.
    """
    return dict(sorted({**shipped_files(kind), **_toml_files(_home() / kind)}.items()))


@cache
def shipped_files(kind: Kind) -> dict[str, Traversable]:
    """The shipped files of that kind: they do not change while the program runs, and are listed once."""
    return _toml_files(data_root(kind))


def _toml_files(folder: Traversable) -> dict[str, Traversable]:
    if not folder.is_dir():
        return {}
    return {file.name.removesuffix(".toml"): file for file in folder.iterdir() if file.name.endswith(".toml")}


@cache
def table_rows(kind: Kind, table: str) -> tuple[dict[str, str], ...]:
    """The rows of a shipped table of devices or models."""
    with (data_root(kind) / "tables" / f"{table}.csv").open(encoding="utf-8") as file:
        return tuple(csv.DictReader(file))


def sound_names(kind: Kind, load: Callable[[str], object]) -> list[str]:
    """Names of all files of that kind, sorted, without a user's own that ``load`` cannot read: a warning names them."""
    names = set(shipped_files(kind))
    for name in _toml_files(_home() / kind):
        try:
            load(name)
        except BadDataError as error:
            names.discard(name)
            warnings.warn(f"skipped {error}", stacklevel=2)
        else:
            names.add(name)
    return sorted(names)


def learned_file(device: str) -> Path:
    """Where what measurements taught of that device is kept; made by nobody here."""
    return _home() / "learned" / f"{device}.json"


def as_path(ref: str) -> Path | None:
    """The path that ``ref`` is, or None when it is a name: a path has a separator or a file's ending.

    Raises:
        RefusedError: It begins with the home of a user who does not exist.
    """
    separators = {os.sep, os.altsep or os.sep, "/"}
    is_path = any(s in ref for s in separators) or ref.endswith((".toml", ".gguf", ".json", ".onnx"))
    if not is_path:
        return None
    path = _expanded(ref)
    if str(path).startswith("~"):
        raise RefusedError(f"{ref}: found {path.parts[0]}, expected the home of a user who exists")
    return path


def _home() -> Path:
    return _expanded(os.environ.get("EDGE_HARNESS_HOME") or user_data_path("edge-harness", appauthor=False))


def _expanded(folder: str | Path) -> Path:
    return Path(os.path.expanduser(folder))  # noqa: PTH111  Path's own raises where no home is known


def _made(folder: Path, variable: str) -> Path:
    if str(folder).startswith("~"):
        raise CouldNotRunError(f"no home folder is known. Name one with {variable}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CouldNotRunError(
            f"cannot make {folder}: {error.strerror}. Name another with {variable}"
        ) from error
    return folder
