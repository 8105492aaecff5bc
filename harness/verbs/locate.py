"""From what a user names to a model on this machine: a file or an ONNX folder as it is, a card by fetching its file."""

from pathlib import Path
from typing import NamedTuple

from harness.answer.resolve import Model, mixture_of, repository_of, resolve_model
from harness.core.errors import BadDataError, FetchError, MissingPackageError, RefusedError
from harness.core.foreign import inside
from harness.core.model import Weights
from harness.core.paths import as_path, cache_dir
from harness.core.progress import Progress
from harness.models.fetch import bring, file_of, pull
from harness.models.gguf import read_weights
from harness.models.hub import files_in
from harness.models.quant import split
from harness.models.quant_mix import quant_named
from harness.onnx.files import MODEL_FILE, OPENVINO_FILE, onnx_model, quant_label
from harness.onnx.graph import read_graph


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
        """``gguf``, ``onnx``, ``mlx`` or ``openvino``; of any other file its ending, such as ``json``."""
        if self.weights is not None:
            return "gguf"
        return {"safetensors": "mlx", "xml": "openvino"}.get(self.path.suffix[1:], self.path.suffix[1:])

    def resolved(self) -> Model | None:
        """The same for predictions."""
        if self.weights is None:
            return None
        return Model(self.name, self.quant, self.weights, path=self.path)


def obtain(ref: str, quant: str, *, progress: Progress | None = None) -> Located:
    """The file of a model on this machine, fetched first when it is not here yet from where its card or the hub has it.

    Raises:
        UnknownNameError: No such model.
        BadDataError: There is no file of that path, or it is no model.
        RefusedError: Nobody here knows a file of it; or the file given holds another mixture.
        FetchError: The file could not be had.
    """
    path = as_path(ref)
    if path is not None and path.suffix != ".toml" and path.exists():
        return _here(path, quant)
    model = resolve_model(ref, quant or None)
    if model.path is not None:
        return _here(model.path, quant)
    is_itself = not model.asked_name  # else a file of the card would be another model's
    card = model.card if is_itself else None
    asked = quant or split(ref)[1] * (card is not None and ref != card.name and model.repo == "")
    if card is not None and card.files and not model.repo:
        stands, said = mixture_of(asked) if asked else ("", ())
        if said:
            raise RefusedError(f"{ref}: the card of {card.name} has no file of {asked}: {said[0]}")
        file = file_of(card, stands or None)
        fetched = pull(card, file.quant, progress=progress)
        return Located(card.name, file.quant, fetched, read_weights(fetched))
    repo = model.repo or (repository_of(model.name) if is_itself else "")
    if not repo:
        raise RefusedError(
            f"{model.shown[0]} has only a shape here, no file: give a .gguf file, or hf:org/repo of a GGUF repository"
        )
    folder = cache_dir() / "models" / repo.replace("/", "--")
    try:
        parts = [
            bring(file, inside(folder, Path(file.hub.file).name, repo), repo, progress=progress)
            for file in files_in(repo, model.file, asked or model.shown[1])
            if file.hub
        ]
    except (MissingPackageError, FetchError) as error:
        raise FetchError(
            f"{ref}: its file can be had as hf:{repo}, or bring one of your own. {error}"
        ) from error
    weights = read_weights(parts[0])
    return Located(model.name, weights.quant, parts[0], weights)


def _here(path: Path, quant: str) -> Located:
    """A file, or a folder of ONNX, OpenVINO or MLX as it lies here."""
    if (graph := onnx_model(path)) is not None:
        label = quant_label(read_graph(graph))
        if quant and quant.upper() != label:
            raise RefusedError(f"{graph} holds {label}, not {quant}")
        name = graph.absolute().parent.name if graph.name == MODEL_FILE else graph.stem
        return Located(name, label, graph, None)
    if (graph := path / OPENVINO_FILE if path.is_dir() else path).name == OPENVINO_FILE and graph.is_file():
        return Located(graph.absolute().parent.name, quant, graph, None)
    if path.is_dir():
        parts = sorted(path.glob("model*.safetensors"))
        if not parts or not (path / "config.json").is_file():
            expected = "a model file, or a folder of ONNX, OpenVINO or MLX"
            raise BadDataError(path, "", f"a folder without {MODEL_FILE}", expected)
        return Located(path.absolute().name, quant, parts[0], None)
    weights = None if path.suffix == ".json" else read_weights(path)
    label = weights.quant if weights else ""
    if quant and label and quant_named(quant) != label:
        raise RefusedError(f"{path} holds {label}, not {quant}")
    return Located(path.stem, label, path, weights)
