"""Cards for files that a user already has."""

import re
from pathlib import Path

from harness.catalog._progress import Progress, no_progress
from harness.catalog.file_hash import sha256_of
from harness.catalog.gguf import read_gguf
from harness.catalog.hf_config import read_hf_config
from harness.catalog.models import dump_model, load_card
from harness.catalog.paths import home_dir
from harness.domain.model import ModelCard, ModelFile
from harness.errors import BadDataError, RefusedError


def card_of(path: Path, name: str | None = None, *, progress: Progress | None = None) -> ModelCard:
    """A card for a GGUF file (read whole, for its hash) or a config.json (a shape alone).

    Raises:
        BadDataError: The file is neither, or breaks its format.
        RefusedError: The name cannot be a file's.
    """
    path = path.expanduser().resolve()
    stem = path.parent.name if path.name == "config.json" else path.stem
    title = name = _name(name or stem)
    licence, notes, count, files = None, "", 0, tuple[ModelFile, ...]()
    if path.suffix == ".gguf":
        header = read_gguf(path)
        weights = header.weights()
        shape, title, licence = weights.shape, header.name, header.metadata.get("general.license")
        count = sum(t.element_count for t in weights.tensors)
        sha256 = sha256_of(path, progress or no_progress)
        files = (ModelFile(quant=weights.quant, size_bytes=weights.file_bytes, sha256=sha256, path=str(path)),)
        notes = "Its weights are random." if header.synthetic else ""
    elif path.suffix == ".json":
        shape = read_hf_config(path)
    else:
        raise BadDataError(path, "", f"the ending {path.suffix!r}", "a .gguf file or a config.json")
    return ModelCard(
        name=name,
        title=title,
        family=shape.architecture,
        licence=licence if isinstance(licence, str) and licence else "unknown",
        source=f"{'header of' if files else 'shape from'} {path.name}",
        parameter_count=count,
        active_parameter_count=count if shape.experts is None else 0,
        shape=shape,
        default_quant=files[0].quant if files else "Q4_K_M",
        files=files,
        notes=notes,
    )


def save_card(card: ModelCard) -> Path:
    """Write the card into the user's own models folder, checked as every card is.

    Raises:
        RefusedError: There is one of that name.
        BadDataError: It breaks the schema.
    """
    folder = home_dir() / "models"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{card.name}.toml"
    fresh = folder / f".{card.name}.toml"
    fresh.write_text(dump_model(card), encoding="utf-8")
    try:
        load_card(str(fresh))
        target.hardlink_to(fresh)
    except FileExistsError:
        raise RefusedError(f"{target} is there already; give another --name or remove it") from None
    finally:
        fresh.unlink()
    return target


def _name(name: str) -> str:
    lower = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-.")
    if not lower or len(lower) > 120:
        raise RefusedError(f"{name!r} cannot be a model's name: letters, digits, dots and dashes, at most 120")
    return lower
