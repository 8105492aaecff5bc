"""From what a user names to a model file on this machine: a path as it is, a card by fetching its file."""

from pathlib import Path
from typing import NamedTuple

from harness.app.resolve import ResolvedModel
from harness.catalog._progress import Progress
from harness.catalog.fetch import file_of, pull
from harness.catalog.gguf import read_gguf
from harness.catalog.models import load_model
from harness.catalog.paths import as_path
from harness.domain.model import Weights
from harness.errors import BadDataError, RefusedError
from harness.feasibility.quant_mix import quant_named


class Located(NamedTuple):
    """A model file on this machine.

    Attributes:
        name: The card's name, or the file's stem.
        quant: Its mixture; empty for a file that is no GGUF.
        path: The file.
        sha256: Its hash where the card vouches for it; empty otherwise.
        weights: Its tensors; None for a file that is no GGUF (a fake model).
    """

    name: str
    quant: str
    path: Path
    sha256: str
    weights: Weights | None

    def resolved(self) -> ResolvedModel | None:
        """The same for predictions."""
        return None if self.weights is None else ResolvedModel(self.name, self.quant, self.weights, path=self.path)


def locate(ref: str, quant: str, *, progress: Progress | None = None) -> Located:
    """The file of a model, fetched first when it is not here yet.

    Raises:
        UnknownNameError: No such model.
        BadDataError: There is no file of that path, or it is no model.
        RefusedError: The model has no file at all, or the file given holds another mixture.
        FetchError: The file could not be had.
    """
    path = as_path(ref)
    if path is not None and path.suffix != ".toml":
        if not path.is_file():
            raise BadDataError(path, "", "no such file", "a model file")
        weights = None if path.suffix == ".json" else read_gguf(path).weights()
        found = weights.quant if weights else ""
        if quant and found and quant_named(quant) != found:
            raise RefusedError(f"{path} holds {found}, not {quant}")
        return Located(path.stem, found, path, "", weights)
    card = load_model(ref)
    file = file_of(card, quant or None)
    fetched = pull(card, file.quant, progress=progress)
    return Located(card.name, file.quant, fetched, file.sha256, read_gguf(fetched).weights())
