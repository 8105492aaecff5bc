"""Model cards: ``models/*.toml`` mirror ``domain.model.ModelCard``, but for the name, which is the file's stem."""

import re
from collections.abc import Iterator
from functools import lru_cache
from importlib.resources.abc import Traversable
from typing import Any

from harness.core.errors import BadDataError, UnknownNameError, what_is_there
from harness.core.foreign import toml_in, typed
from harness.core.model import ModelCard
from harness.core.paths import as_path, data_files, sound_names, table_rows
from harness.models.shape_check import check_shape


def model_names() -> list[str]:
    """Names of all models, shipped and the user's own, sorted; broken files of the user's are warned of."""
    return sorted({*sound_names("models", load_card), *_shapes()})


def named() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Names of all models, each with its title and aliases; no card is read for it."""
    also: dict[str, list[str]] = {}
    for row in table_rows("models", "aliases"):
        also.setdefault(row["means"], []).append(row["name"])
    files = data_files("models")
    for name, file in files.items():
        head = file.read_bytes().decode(errors="replace").partition("\n[shape]")[0]
        title = re.search(r'^title = "(.*)"$', head, re.MULTILINE)
        aliases = re.search(r"^aliases = \[(.*?)\]", head, re.MULTILINE | re.DOTALL)
        written = re.findall(r'"([^"]*)"', aliases[1] if aliases else "")
        yield name, (title[1] if title else name, *written, *also.get(name, ()))
    for name, row in _shapes().items():
        if name not in files:
            yield name, (row["title"], *also.get(name, ()))


def load_card(ref: str) -> ModelCard:
    """The card of exactly that name, or in that ``.toml`` file.

    Other names than those of cards are read by :func:`harness.models.names.load_model`.

    Raises:
        UnknownNameError: No card of that name.
        BadDataError: The file breaks the schema.
    """
    path = as_path(ref)
    if path is not None and (path.suffix == ".toml" or path.exists()):
        if path.suffix != ".toml":
            instead = f"the ending {path.suffix!r}" if path.is_file() else what_is_there(path)
            raise BadDataError(path, "", instead, "a .gguf, config.json or .toml")
        return _checked(*_card(path))
    known = data_files("models")
    if ref in known:
        return _checked(*_card(known[ref]))
    if ref in _shapes():
        return _checked(*_of_row(_shapes()[ref]))
    raise UnknownNameError("model", ref, ())


@lru_cache(maxsize=1)
def _shapes() -> dict[str, dict[str, str]]:
    """Rows of the table of shapes by name."""
    return {row["name"]: row for row in table_rows("models", "shapes")}


def _of_row(row: dict[str, str]) -> tuple[ModelCard, str]:
    """A card, and its place, from a row of the table of shapes.

    Columns are paths to fields, ``more`` has others with their values.
    """
    place = f"models/tables/shapes.csv, {row['name']}"
    document: dict[str, Any] = {}
    for path, text in [*row.items(), *(word.split("=") for word in row["more"].split())]:
        *tables, field = path.split(".")
        table = document
        for name in tables:
            table = table.setdefault(name, {})
        if path != "more":
            table[field] = text
    return typed(document, ModelCard, place, strict=False), place


def _card(file: Traversable) -> tuple[ModelCard, str]:
    place = str(file)
    document = toml_in(file)
    name = file.name.removesuffix(".toml")
    if "name" in document:
        raise BadDataError(
            place, "name", repr(document["name"]), "no such key: a model's name is its file's stem"
        )
    return typed(document | {"name": name}, ModelCard, place), place


def _checked(card: ModelCard, place: str) -> ModelCard:
    check_shape(card.shape, place)
    for index, file in enumerate(card.files):
        at = f"files[{index}]"
        if not re.fullmatch(r"[0-9a-f]{64}", file.sha256):
            found = repr(file.sha256)[:40]
            raise BadDataError(place, f"{at}.sha256", found, "64 lower-case hexadecimal digits")
        source = file.registry
        if source and len(source.packages) != len(source.members):
            counts = f"{len(source.members)} for {len(source.packages)} packages"
            raise BadDataError(place, f"{at}.registry.members", counts, "one each")
    if card.active_parameter_count > card.parameter_count:
        active = card.active_parameter_count
        most = card.parameter_count
        raise BadDataError(place, "active_parameter_count", str(active), f"at most parameter_count, {most}")
    return card
