"""From what a user names to a model on this machine: a file or an ONNX folder as it is, a card by fetching its file."""

from pathlib import Path
from typing import NamedTuple

from harness.app.resolve import ResolvedModel, mixture_of, one_quant
from harness.catalog._progress import Progress
from harness.catalog.fetch import file_of, pull
from harness.catalog.gguf import read_weights
from harness.catalog.names import is_repository, load_model
from harness.catalog.paths import as_path
from harness.domain.model import Weights
from harness.domain.quant import split
from harness.errors import BadDataError, RefusedError
from harness.onnx.files import MODEL_FILE, onnx_model, quant_label
from harness.onnx.graph import read_graph
from harness.predict.quant_mix import quant_named


class Located(NamedTuple):
    """A model file on this machine, ``model.onnx`` of an ONNX folder; its tensors where it is a GGUF file.

    Its mixture is what the graph of an ONNX model says; empty where nobody knows (a fake model).
    """

    name: str
    quant: str
    path: Path
    weights: Weights | None

    @property
    def format(self) -> str:
        """``gguf``, ``onnx`` or ``mlx``; of any other file its ending, such as ``json``."""
        return "gguf" if self.weights is not None else self.path.suffix[1:].replace("safetensors", "mlx")

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
    if path is not None and path.suffix != ".toml" and not (is_repository(ref) and not path.exists()):
        if (graph := onnx_model(path)) is not None:
            found = quant_label(read_graph(graph))
            if quant and quant.upper() != found:
                raise RefusedError(f"{graph} holds {found}, not {quant}")
            name = graph.absolute().parent.name if graph.name == MODEL_FILE else graph.stem
            return Located(name, found, graph, None)
        if path.is_dir() and (path / "config.json").is_file() and (parts := sorted(path.glob("model*.safetensors"))):
            return Located(path.absolute().name, quant, parts[0], None)
        if path.is_dir():
            raise BadDataError(path, "", f"a folder without {MODEL_FILE}", "a model file, or a folder of ONNX or MLX")
        if not path.is_file():
            raise BadDataError(path, "", "no such file", "a model file")
        weights = None if path.suffix == ".json" else read_weights(path)
        found = weights.quant if weights else ""
        if quant and found and quant_named(quant) != found:
            raise RefusedError(f"{path} holds {found}, not {quant}")
        return Located(path.stem, found, path, weights)
    card = load_model(ref)
    named = "" if ref == card.name or path is not None else split(ref)[1]
    one_quant(ref, named, quant)
    if named and not quant:
        quant, said = mixture_of(named)
        if said:
            raise RefusedError(f"{ref}: the card of {card.name} has no file of {named}: {said[0]}")
    file = file_of(card, quant or None)
    fetched = pull(card, file.quant, progress=progress)
    return Located(card.name, file.quant, fetched, read_weights(fetched))
