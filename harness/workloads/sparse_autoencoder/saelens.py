"""SAELens's folder: ``cfg.json`` and ``sae_weights.safetensors``, read and written without SAELens.

Format of SAELens 6 (read in 6.54.12): tensors ``W_enc`` [d_in, d_sae], ``b_enc``, ``W_dec`` [d_sae, d_in], ``b_dec``
and, for jumprelu, ``threshold``; the architecture is ``standard`` (ReLU), ``topk`` (with ``k``) or ``jumprelu``. What
the configuration says beyond that is kept and written back as it was.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from harness.errors import BadDataError, MissingPackageError
from harness.workloads.sparse_autoencoder.model import Floats, SparseAutoencoder

CONFIG: Final = "cfg.json"
WEIGHTS: Final = "sae_weights.safetensors"
FORMAT_VERSION: Final = "6.54.12"
"""Version of SAELens whose format is written."""

_ARCHITECTURES: Final = {"standard": "relu", "topk": "topk", "jumprelu": "jumprelu"}
_DTYPES: Final = {"F32": np.float32, "F16": np.float16}
_SHAPES: Final = {"W_enc": "dm", "b_enc": "m", "W_dec": "md", "b_dec": "d", "threshold": "m"}


@dataclass(frozen=True, slots=True)
class Folder:
    """What a folder holds.

    Attributes:
        autoencoder: In float32.
        config: ``cfg.json`` as it was read.
        dtype: Type of the stored tensors: ``F32`` or ``F16``.
    """

    autoencoder: SparseAutoencoder
    config: dict[str, Any] = field(default_factory=dict)
    dtype: str = "F32"


def load_folder(folder: Path) -> Folder:
    """Read a folder.

    A TopK trained with ``rescale_acts_by_decoder_norm`` has the norms folded into its weights, as SAELens does when it
    saves for inference; its configuration then says so.

    Raises:
        MissingPackageError: safetensors is not installed.
        BadDataError: A file is missing or broken, or is an architecture that is not one of the three.
    """
    config = _read_config(folder / CONFIG)
    tensors, dtype = _read_tensors(folder / WEIGHTS, config)
    architecture = config["architecture"]
    if architecture == "topk" and config.get("rescale_acts_by_decoder_norm"):
        norms = np.linalg.norm(tensors["W_dec"], axis=1)
        tensors["W_enc"] = tensors["W_enc"] * norms
        tensors["b_enc"] = tensors["b_enc"] * norms
        tensors["W_dec"] = tensors["W_dec"] / norms[:, None]
        config["rescale_acts_by_decoder_norm"] = False
    return Folder(
        SparseAutoencoder(
            encoder=tensors["W_enc"],
            encoder_bias=tensors["b_enc"],
            decoder=tensors["W_dec"],
            decoder_bias=tensors["b_dec"],
            activation=_ARCHITECTURES[architecture],
            active_count=config["k"] if architecture == "topk" else 0,
            threshold=tensors.get("threshold"),
            centred=bool(config.get("apply_b_dec_to_input", True)),
        ),
        config,
        dtype,
    )


def save_folder(content: Folder | SparseAutoencoder, folder: Path, *, metadata: dict[str, Any] | None = None) -> None:
    """Write a folder that SAELens loads; what was read by :func:`load_folder` comes out with the same bytes in it.

    Args:
        content: What to write.
        folder: Made if it is not there.
        metadata: For a bare autoencoder: SAELens's metadata, such as ``model_name`` and ``hook_name``.

    Raises:
        MissingPackageError: safetensors is not installed.
    """
    from_folder = content if isinstance(content, Folder) else Folder(content, config_of(content, metadata))
    sae = from_folder.autoencoder
    arrays = {"W_enc": sae.encoder, "b_enc": sae.encoder_bias, "W_dec": sae.decoder, "b_dec": sae.decoder_bias}
    if sae.threshold is not None:
        arrays["threshold"] = sae.threshold
    kind = _DTYPES[from_folder.dtype]
    folder.mkdir(parents=True, exist_ok=True)
    save = _safetensors().save_file
    save({n: np.ascontiguousarray(a, kind) for n, a in arrays.items()}, str(folder / WEIGHTS))
    (folder / CONFIG).write_text(json.dumps(from_folder.config), encoding="utf-8")


def config_of(autoencoder: SparseAutoencoder, metadata: dict[str, Any] | None = None) -> dict[str, Any]:
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
        "architecture": names[autoencoder.activation],
    }
    if autoencoder.activation == "topk":
        config |= {"k": autoencoder.active_count, "rescale_acts_by_decoder_norm": False}
    return config


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadDataError(path, "", f"unreadable ({error})", "a SAELens configuration") from error
    if not isinstance(config, dict):
        raise BadDataError(path, "", type(config).__name__, "an object")
    architecture = config.get("architecture")
    if architecture not in _ARCHITECTURES:
        raise BadDataError(path, "architecture", repr(architecture), f"one of {', '.join(_ARCHITECTURES)}")
    for name in ("d_in", "d_sae", *(["k"] if architecture == "topk" else [])):
        value = config.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise BadDataError(path, name, repr(value), "a whole number of at least 1")
    if architecture == "topk" and config["k"] > config["d_sae"]:
        raise BadDataError(path, "k", str(config["k"]), f"at most d_sae = {config['d_sae']}")
    # The average norm is folded into the weights when SAELens saves; the others change the input at run time.
    if config.get("normalize_activations", "none") not in {"none", "expected_average_only_in"}:
        raise BadDataError(path, "normalize_activations", repr(config["normalize_activations"]), "none")
    if config.get("reshape_activations", "none") != "none":
        raise BadDataError(path, "reshape_activations", repr(config["reshape_activations"]), "none")
    return config


def _read_tensors(path: Path, config: dict[str, Any]) -> tuple[dict[str, Floats], str]:
    open_file = _safetensors_open()
    sizes = {"d": config["d_in"], "m": config["d_sae"]}
    wanted = [n for n in _SHAPES if n != "threshold" or config["architecture"] == "jumprelu"]
    try:
        with open_file(str(path), framework="numpy") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  no dictionary
            faults = [f for n in wanted if (f := _fault(path, n, parts.get(n), [sizes[s] for s in _SHAPES[n]]))]
            dtypes = {parts[n].get_dtype() for n in wanted if not faults}
            found = {n: np.ascontiguousarray(file.get_tensor(n), np.float32) for n in wanted if not faults}
    except Exception as error:  # the library's own error class is no public name
        raise BadDataError(path, "", f"unreadable ({error})", "a safetensors file") from error
    if faults:
        raise faults[0]
    if len(dtypes) > 1:
        raise BadDataError(path, "", f"tensors of {' and '.join(sorted(dtypes))}", "one type for all")
    return found, dtypes.pop()


def _fault(path: Path, name: str, part: Any, shape: list[int]) -> BadDataError | None:
    if part is None:
        return BadDataError(path, name, "nothing", "a tensor")
    if part.get_dtype() not in _DTYPES:
        return BadDataError(path, name, part.get_dtype(), " or ".join(_DTYPES))
    found = list(part.get_shape())
    return None if found == shape else BadDataError(path, name, f"shape {found}", str(shape))


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingPackageError("safetensors", "sae") from error
    return safetensors.numpy


def _safetensors_open() -> Any:
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise MissingPackageError("safetensors", "sae") from error
    return safe_open
