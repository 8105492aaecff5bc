"""Model cards: ``models/*.toml`` mirror ``domain.model.ModelCard``, but for the name, which is the file's stem."""

import re
from importlib.resources.abc import Traversable
from typing import Any

import msgspec

from harness.catalog._shape_check import check_shape
from harness.catalog._toml import convert, dump, read_document
from harness.catalog.paths import as_path, data_files
from harness.domain.model import ModelCard, ModelFile
from harness.errors import BadDataError, UnknownNameError, what_is_there


def model_names() -> list[str]:
    """Names of all models, shipped and the user's own, sorted."""
    return list(data_files("models"))


def load_card(ref: str) -> ModelCard:
    """The card of exactly that name, or in that ``.toml`` file; ``catalog.names.load_model`` takes other names too.

    Raises:
        UnknownNameError: No card of that name.
        BadDataError: The file breaks the schema.
    """
    path = as_path(ref)
    if path is not None and (path.suffix == ".toml" or path.exists()):
        if path.suffix != ".toml":
            found = f"the ending {path.suffix!r}" if path.is_file() else what_is_there(path)
            raise BadDataError(path, "", found, "a .gguf, config.json or .toml")
        return _card(path)
    known = data_files("models")
    if ref not in known:
        raise UnknownNameError("model", ref, ())
    return _card(known[ref])


def dump_model(card: ModelCard) -> str:
    """TOML text of a card; saved as ``<card.name>.toml`` it loads back equal. Defaults are left out."""
    document = msgspec.to_builtins(card)
    del document["name"]
    return dump(_without_defaults(document, card))


def _card(file: Traversable) -> ModelCard:
    place = str(file)
    document = read_document(file)
    name = file.name.removesuffix(".toml")
    if "name" in document:
        raise BadDataError(place, "name", repr(document["name"]), "no such key: a model's name is its file's stem")
    card = convert(document | {"name": name}, ModelCard, place)
    check_shape(card.shape, place)
    for index, model_file in enumerate(card.files):
        _check_file(model_file, f"files[{index}]", place)
    if card.active_parameter_count > card.parameter_count:
        found, most = card.active_parameter_count, card.parameter_count
        raise BadDataError(place, "active_parameter_count", str(found), f"at most parameter_count, {most}")
    return card


def _check_file(file: ModelFile, at: str, place: str) -> None:
    if not re.fullmatch(r"[0-9a-f]{64}", file.sha256):
        raise BadDataError(place, f"{at}.sha256", repr(file.sha256)[:40], "64 lower-case hexadecimal digits")
    registry = file.registry
    if registry is None:
        return
    if not registry.packages or len(registry.packages) != len(registry.members):
        found = f"{len(registry.members)} for {len(registry.packages)} packages"
        raise BadDataError(place, f"{at}.registry.members", found, "one each")
    for index, package in enumerate(registry.packages):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.+!]+", package):
            raise BadDataError(place, f"{at}.registry.packages[{index}]", repr(package), "name==version")


def _without_defaults(document: Any, struct: Any) -> Any:
    """Leave out of a struct's builtins what equals the field's default."""
    if isinstance(document, list | tuple):
        return [_without_defaults(d, s) for d, s in zip(document, struct, strict=True)]
    if not isinstance(struct, msgspec.Struct):
        return document
    kept = {}
    for field in msgspec.structs.fields(type(struct)):
        value = getattr(struct, field.name)
        if field.name in document and (field.required or value != field.default):
            kept[field.name] = _without_defaults(document[field.name], value)
    return kept
