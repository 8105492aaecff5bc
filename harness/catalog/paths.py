"""Where data files, downloads and a user's own files lie."""

import csv
import os
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

from platformdirs import user_cache_path, user_data_path

from harness.errors import CouldNotRunError

Kind = Literal["devices", "models"]


def data_root(kind: Kind) -> Traversable:
    """Directory of the ``kind`` data files, shipped with the package or in the checkout."""
    shipped = files("harness") / "data" / kind
    return shipped if shipped.is_dir() else Path(__file__).parents[2] / kind


def cache_dir() -> Path:
    """Folder for what can be had again: ``EDGE_HARNESS_CACHE``, else the system's own; made if absent.

    Raises:
        CouldNotRunError: It cannot be made.
    """
    folder = os.environ.get("EDGE_HARNESS_CACHE") or user_cache_path("edge-harness", appauthor=False)
    return _made(_expanded(folder), "EDGE_HARNESS_CACHE")


def home_dir() -> Path:
    """Folder for the user's own: history, devices, models. ``EDGE_HARNESS_HOME``, else the system's; made if absent.

    Raises:
        CouldNotRunError: It cannot be made.
    """
    return _made(_home(), "EDGE_HARNESS_HOME")


def data_files(kind: Kind) -> dict[str, Traversable]:
    """Every file of that kind by its stem; a user's own file in ``home_dir()`` wins over a shipped one.

    Makes no folder, so that listing works where nothing may be written.
    """
    found: dict[str, Traversable] = {}
    for root in (data_root(kind), _home() / kind):
        if root.is_dir():
            found |= {f.name.removesuffix(".toml"): f for f in root.iterdir() if f.name.endswith(".toml")}
    return dict(sorted(found.items()))


@lru_cache(maxsize=16)
def table_rows(kind: Kind, table: str) -> tuple[dict[str, str], ...]:
    """The rows of a shipped table of devices or models."""
    with (data_root(kind) / "tables" / f"{table}.csv").open(encoding="utf-8") as file:
        return tuple(csv.DictReader(file))


def learned_file(device: str) -> Path:
    """Where what measurements taught of that device is kept; made by nobody here."""
    return _home() / "learned" / f"{device}.json"


def as_path(ref: str) -> Path | None:
    """The path that ``ref`` is, or None when it is a name: a path has a separator or a file's ending."""
    separators = {os.sep, os.altsep or os.sep, "/"}
    is_path = any(s in ref for s in separators) or ref.endswith((".toml", ".gguf", ".json", ".onnx"))
    return Path(ref).expanduser() if is_path else None


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
        raise CouldNotRunError(f"cannot make {folder}: {error.strerror}. Name another with {variable}") from error
    return folder
