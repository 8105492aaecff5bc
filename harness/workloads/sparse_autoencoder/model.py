"""A sparse autoencoder as arrays, in the folder format of SAELens.

h = (x - b_dec) W_enc + b_enc
z = the k largest values of h, of them those above zero (TopK), or all above a threshold (ReLU: 0; JumpReLU: its own)
y = z W_dec + b_dec

x [tokens, dim], W_enc [dim, features], W_dec [features, dim]. Sources: Gao et al. 2024, arXiv:2406.04093 (TopK);
Rajamanoharan et al. 2024, arXiv:2407.14435 (JumpReLU); SAELens 6 for the folder (``cfg.json``,
``sae_weights.safetensors``).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from harness.arrays import Integers, Singles
from harness.domain.foreign import json_in
from harness.errors import BadDataError, MissingPackageError, optional

CONFIG: Final = "cfg.json"
WEIGHTS: Final = "sae_weights.safetensors"
_NAMES: Final = {"W_enc": "encoder", "b_enc": "encoder_bias", "W_dec": "decoder", "b_dec": "decoder_bias"}


class Codes(NamedTuple):
    """Features of each token: ``indices`` and ``values`` [tokens, k]; a value of 0 is not active."""

    indices: Integers
    values: Singles


@dataclass(frozen=True, kw_only=True, eq=False)
class SparseAutoencoder:
    """One dictionary.

    Attributes:
        encoder: W_enc [dim, features].
        encoder_bias: b_enc [features].
        decoder: W_dec [features, dim].
        decoder_bias: b_dec [dim].
        active_count: k of a TopK; 0 for the other kinds.
        threshold: Of a JumpReLU [features]; 0 for the other kinds.
        is_centred: Whether b_dec is taken off before encoding.
    """

    encoder: Singles
    encoder_bias: Singles
    decoder: Singles
    decoder_bias: Singles
    active_count: int = 0
    threshold: Singles | float = 0.0
    is_centred: bool = True

    def encode(self, x: Singles) -> Codes:
        """Features of activations [tokens, dim]."""
        centred: Singles = x - self.decoder_bias if self.is_centred else x
        h: Singles = centred @ self.encoder + self.encoder_bias
        h[h <= np.maximum(self.threshold, 0)] = 0
        return largest(h, self.active_count or max(1, int(np.count_nonzero(h, axis=1).max())))

    def decode(self, codes: Codes) -> Singles:
        """Reconstruction [tokens, dim] from the active rows alone: 2 L0 dim operations a token."""
        rows = [values @ self.decoder[indices] for indices, values in zip(*codes, strict=True)]
        y: Singles = np.stack(rows) + self.decoder_bias
        return y


def largest(h: Singles, count: int) -> Codes:
    """The ``count`` largest values of each row."""
    chosen = np.argpartition(h, -count, axis=1)[:, -count:]
    return Codes(chosen, np.take_along_axis(h, chosen, axis=1))


def load(folder: Path) -> SparseAutoencoder:
    """Read a folder of SAELens.

    Raises:
        MissingPackageError: safetensors is not installed.
        BadDataError: A file is missing or broken, or the autoencoder is of a kind that is not read here.
    """
    path, weights = folder / CONFIG, folder / WEIGHTS
    config = json_in(path, "a configuration of SAELens", 1 << 20)
    kind = config.get("architecture", "standard")
    older = config.get("activation_fn_kwargs") or {}  # before version 6
    if config.get("activation_fn_str", config.get("activation_fn")) == "topk":
        kind = "topk"
    if kind not in {"standard", "topk", "jumprelu"}:
        raise BadDataError(path, "architecture", str(kind)[:80], "standard, topk or jumprelu")
    if config.get("normalize_activations", "none") not in {"none", None}:
        raise BadDataError(path, "normalize_activations", str(config["normalize_activations"])[:80], "none")
    try:
        tensors: dict[str, Singles] = {k: v.astype(np.float32) for k, v in _safetensors().load_file(weights).items()}
        arrays: dict[str, Any] = {ours: tensors[theirs] for theirs, ours in _NAMES.items()}
        if kind == "jumprelu":
            arrays["threshold"] = tensors["threshold"]
    except MissingPackageError:
        raise
    except Exception as error:  # the reader's errors share no base below Exception
        raise BadDataError(weights, "", str(error)[:200], f"the tensors {', '.join(_NAMES)}") from error
    dim, features = arrays["encoder"].shape
    wanted = {"encoder_bias": (features,), "decoder": (features, dim), "decoder_bias": (dim,), "threshold": (features,)}
    for name, shape in wanted.items():
        if name in arrays and arrays[name].shape != shape:
            raise BadDataError(weights, name, str(arrays[name].shape), str(shape))
    if config.get("rescale_acts_by_decoder_norm"):  # it chooses by activation x norm: folded into the weights
        norms = np.linalg.norm(arrays["decoder"], axis=1)
        arrays["encoder"] = arrays["encoder"] * norms
        arrays["encoder_bias"] = arrays["encoder_bias"] * norms
        arrays["decoder"] = arrays["decoder"] / norms[:, None]
    count = config.get("k") or older.get("k") or 0
    if kind == "topk" and not (isinstance(count, int) and 0 < count <= features):
        raise BadDataError(path, "k", str(count)[:80], f"a whole number from 1 to {features}")
    centred = bool(config.get("apply_b_dec_to_input", True))
    return SparseAutoencoder(**arrays, active_count=count if kind == "topk" else 0, is_centred=centred)


def save(autoencoder: SparseAutoencoder, folder: Path, **metadata: Any) -> None:
    """Write a TopK as a folder that SAELens loads; MissingPackageError where safetensors is not installed."""
    feature_count, dim = autoencoder.decoder.shape
    config = {
        "architecture": "topk",
        "d_in": dim,
        "d_sae": feature_count,
        "k": autoencoder.active_count,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "rescale_acts_by_decoder_norm": False,
        "metadata": metadata,
    }
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {theirs: np.ascontiguousarray(getattr(autoencoder, ours)) for theirs, ours in _NAMES.items()}
    _safetensors().save_file(tensors, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")


def _safetensors() -> Any:
    with optional("safetensors", "sae"):
        import safetensors.numpy
    return safetensors.numpy
