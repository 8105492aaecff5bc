"""SAELens's folder: ``cfg.json`` and ``sae_weights.safetensors``, read and written without SAELens.

Format of SAELens 6 (read in 6.54.12): tensors ``W_enc`` [d_in, d_sae], ``b_enc``, ``W_dec`` [d_sae, d_in], ``b_dec``
and, for jumprelu, ``threshold``; the architecture is ``standard`` (ReLU), ``topk`` (with ``k``) or ``jumprelu``.
Configurations of versions before 6 name the activation instead (``activation_fn_str``, ``activation_fn_kwargs``). What
a folder holds beyond that, and the bytes of its configuration, are kept and written back as they were.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.other_autoencoders import OtherAutoencoder
from harness.errors import BadDataError, MissingPackageError

CONFIG: Final = "cfg.json"
WEIGHTS: Final = "sae_weights.safetensors"
FORMAT_VERSION: Final = "6.54.12"
"""Version of SAELens whose format is written."""

_ARCHITECTURES: Final = {"standard": "relu", "topk": "topk", "jumprelu": "jumprelu"}
_DTYPES: Final = {"F32": np.float32, "F16": np.float16}
_SHAPES: Final = {"W_enc": "dm", "b_enc": "m", "W_dec": "md", "b_dec": "d", "threshold": "m"}


class Stored(NamedTuple):
    """Tensors of a file, and the autoencoder that they are."""

    autoencoder: OtherAutoencoder
    tensors: dict[str, NDArray[Any]]
    notes: dict[str, str] | None


@dataclass(frozen=True, slots=True)
class Folder:
    """What a folder holds.

    Attributes:
        autoencoder: In float32.
        config: ``cfg.json`` as it was read.
        dtype: Type of the stored tensors: ``F32`` or ``F16``.
        text: ``cfg.json`` itself; empty for one that was never read.
        stored: The file's tensors, so that they come out as they came in; None for what was never in a file.
    """

    autoencoder: OtherAutoencoder
    config: dict[str, Any] = field(default_factory=dict)
    dtype: str = "F32"
    text: str = ""
    stored: Stored | None = None


def load_folder(folder: Path) -> Folder:
    """Read a folder.

    A TopK trained with ``rescale_acts_by_decoder_norm`` chooses by activations times the norms of the decoder's rows:
    the norms are folded into the autoencoder's weights, as SAELens does when it saves for inference.

    Raises:
        MissingPackageError: safetensors is not installed.
        BadDataError: A file is missing or broken, or is an architecture that is not one of the three.
    """
    config, text = _read_config(folder / CONFIG)
    meaning = _meaning(folder / CONFIG, config)
    stored, notes, dtype = _read_tensors(folder / WEIGHTS, meaning)
    tensors = {n: np.ascontiguousarray(stored[n], np.float32) for n in _wanted(meaning)}
    if meaning.rescaled:
        norms = np.linalg.norm(tensors["W_dec"], axis=1)
        tensors["W_enc"] = tensors["W_enc"] * norms
        tensors["b_enc"] = tensors["b_enc"] * norms
        tensors["W_dec"] = tensors["W_dec"] / norms[:, None]
    sae = OtherAutoencoder(
        encoder=tensors["W_enc"],
        encoder_bias=tensors["b_enc"],
        decoder=tensors["W_dec"],
        decoder_bias=tensors["b_dec"],
        activation=_ARCHITECTURES[meaning.architecture],
        active_count=meaning.active_count,
        threshold=tensors.get("threshold"),
        centred=meaning.centred,
    )
    return Folder(sae, config, dtype, text, Stored(sae, stored, notes))


def save_folder(content: Folder | OtherAutoencoder, folder: Path, *, metadata: dict[str, Any] | None = None) -> None:
    """Write a folder that SAELens loads; what :func:`load_folder` gave comes out byte for byte.

    Args:
        content: What to write; a :class:`Folder` whose autoencoder was exchanged is written with the new weights.
        folder: Made if it is not there.
        metadata: For a bare autoencoder: SAELens's metadata, such as ``model_name`` and ``hook_name``.

    Raises:
        MissingPackageError: safetensors is not installed.
    """
    from_folder = content if isinstance(content, Folder) else Folder(content, config_of(content, metadata))
    sae, config, stored = from_folder.autoencoder, from_folder.config, from_folder.stored
    tensors: dict[str, NDArray[Any]] = dict(stored.tensors) if stored else {}
    if stored is None or stored.autoencoder is not sae:
        arrays = {"W_enc": sae.encoder, "b_enc": sae.encoder_bias, "W_dec": sae.decoder, "b_dec": sae.decoder_bias}
        if sae.threshold is not None:
            arrays["threshold"] = sae.threshold
        tensors |= {n: np.ascontiguousarray(a, _DTYPES[from_folder.dtype]) for n, a in arrays.items()}
        if stored and config.get("rescale_acts_by_decoder_norm"):  # folded when it was loaded
            config = {**config, "rescale_acts_by_decoder_norm": False}
    folder.mkdir(parents=True, exist_ok=True)
    _safetensors().numpy.save_file(tensors, str(folder / WEIGHTS), metadata=stored.notes if stored else None)
    same = from_folder.text and json.loads(from_folder.text) == config
    (folder / CONFIG).write_text(from_folder.text if same else json.dumps(config), encoding="utf-8", newline="")


def config_of(autoencoder: OtherAutoencoder, metadata: dict[str, Any] | None = None) -> dict[str, Any]:
    """Configuration of an autoencoder that never was in a folder."""
    names = {ours: theirs for theirs, ours in _ARCHITECTURES.items()}
    config: dict[str, Any] = {
        "d_in": autoencoder.input_dim,
        "d_sae": autoencoder.feature_count,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": autoencoder.centred,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": FORMAT_VERSION, "sae_lens_training_version": None, **(metadata or {})},
    }
    if autoencoder.activation == "topk":
        config |= {"k": autoencoder.active_count, "rescale_acts_by_decoder_norm": False}
    return config | {"architecture": names[autoencoder.activation]}  # last, as SAELens has it


class _Meaning(NamedTuple):
    """What a configuration of any version says."""

    architecture: str
    input_dim: int
    feature_count: int
    active_count: int
    rescaled: bool
    centred: bool


def _read_config(path: Path) -> tuple[dict[str, Any], str]:
    try:
        text = path.read_bytes().decode("utf-8")
        config = json.loads(text)
    except (OSError, ValueError) as error:
        raise BadDataError(path, "", f"unreadable ({error})", "a SAELens configuration") from error
    if not isinstance(config, dict):
        raise BadDataError(path, "", type(config).__name__, "an object")
    return config, text


def _meaning(path: Path, config: dict[str, Any]) -> _Meaning:
    architecture, count, count_name = config.get("architecture"), config.get("k"), "k"
    if _is_old(config):
        architecture = architecture or "standard"
        name = "activation_fn_str" if "activation_fn_str" in config else "activation_fn"
        activation = config.get(name, "relu")
        if activation == "topk":
            options, count_name = config.get("activation_fn_kwargs"), "activation_fn_kwargs.k"
            architecture, count = "topk", options.get("k") if isinstance(options, dict) else None
        elif activation != "relu":
            raise BadDataError(path, name, repr(activation), "relu or topk")
        if config.get("finetuning_scaling_factor"):
            raise BadDataError(path, "finetuning_scaling_factor", "true", "false: it is not applied here")
    if architecture not in _ARCHITECTURES:
        raise BadDataError(path, "architecture", repr(architecture), f"one of {', '.join(_ARCHITECTURES)}")
    sizes = {"d_in": config.get("d_in"), "d_sae": config.get("d_sae")}
    if architecture == "topk":
        sizes[count_name] = count
    for name, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise BadDataError(path, name, repr(value), "a whole number of at least 1")
    if architecture == "topk" and count > config["d_sae"]:
        raise BadDataError(path, count_name, str(count), f"at most d_sae = {config['d_sae']}")
    # The average norm is folded into the weights when SAELens saves; the others change the input at run time.
    if config.get("normalize_activations") not in {None, False, True, "none", "expected_average_only_in"}:
        raise BadDataError(path, "normalize_activations", repr(config["normalize_activations"]), "none")
    reshaped = "hook_z" if _is_old(config) and "hook_z" in str(config.get("hook_name", "")) else "none"
    if (reshaped := config.get("reshape_activations", reshaped)) != "none":
        raise BadDataError(path, "reshape_activations", repr(reshaped), "none")
    rescaled = architecture == "topk" and bool(config.get("rescale_acts_by_decoder_norm"))
    centred = bool(config.get("apply_b_dec_to_input", True))
    return _Meaning(architecture, config["d_in"], config["d_sae"], count or 0, rescaled, centred)


def _is_old(config: dict[str, Any]) -> bool:
    """Whether SAELens before 6 wrote it: later ones name their version in the metadata."""
    metadata = config.get("metadata")
    version = config.get("sae_lens_version") or (metadata.get("sae_lens_version") if isinstance(metadata, dict) else "")
    first = str(version or "").partition(".")[0]
    return not first.isdigit() or int(first) < 6


def _wanted(meaning: _Meaning) -> list[str]:
    return [n for n in _SHAPES if n != "threshold" or meaning.architecture == "jumprelu"]


def _read_tensors(path: Path, meaning: _Meaning) -> tuple[dict[str, NDArray[Any]], dict[str, str] | None, str]:
    """(every tensor as stored, the file's notes, type of the autoencoder's)."""
    library = _safetensors()
    sizes = {"d": meaning.input_dim, "m": meaning.feature_count}
    wanted = _wanted(meaning)
    try:
        with library.safe_open(str(path), framework="numpy") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  no dictionary
            faults = [f for n in wanted if (f := _fault(path, n, parts.get(n), [sizes[s] for s in _SHAPES[n]]))]
            dtypes = {parts[n].get_dtype() for n in wanted if not faults}
            found = {n: file.get_tensor(n) for n in parts if not faults}
            notes = file.metadata()
    except Exception as error:  # the library's own error class is no public name
        raise BadDataError(path, "", f"unreadable ({error})", "a safetensors file") from error
    if faults:
        raise faults[0]
    if len(dtypes) > 1:
        raise BadDataError(path, "", f"tensors of {' and '.join(sorted(dtypes))}", "one type for all")
    return found, notes, dtypes.pop()


def _fault(path: Path, name: str, part: Any, shape: list[int]) -> BadDataError | None:
    if part is None:
        return BadDataError(path, name, "nothing", "a tensor")
    if part.get_dtype() not in _DTYPES:
        return BadDataError(path, name, part.get_dtype(), " or ".join(_DTYPES))
    found = list(part.get_shape())
    return None if found == shape else BadDataError(path, name, f"shape {found}", str(shape))


def _safetensors() -> Any:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError as error:
        raise MissingPackageError("safetensors", "sae") from error
    return safetensors
