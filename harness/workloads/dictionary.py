"""A sparse autoencoder as arrays, in SAELens's folder format, and the training of a TopK with Adam.

h = (x - b_dec) W_enc + b_enc
z = the k largest values of h, of them those above zero (TopK)
y = z W_dec + b_dec

x [tokens, dim], W_enc [dim, features], W_dec [features, dim]. Sources: Gao et al. 2024, arXiv:2406.04093;
SAELens 6 for the folder. Other kinds of published dictionaries are SAELens's own to read.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from harness.arrays import Singles
from harness.domain.foreign import json_in
from harness.errors import BadDataError, MissingPackageError, optional

CONFIG: Final = "cfg.json"
WEIGHTS: Final = "sae_weights.safetensors"
_NAMES: Final = ("W_enc", "b_enc", "W_dec", "b_dec")
_BATCH: Final = 512
_RATE: Final = 3e-3
_ENCODER_START: Final = 0.1
"""Length of the encoder's columns before the first step: at full length the k loudest of many directions
overshoot."""
_BETAS: Final = (0.9, 0.99)


@dataclass(frozen=True, kw_only=True, eq=False)
class Dictionary:
    """One autoencoder, of which ``active_count`` features are active at once."""

    arrays: dict[str, Singles]
    active_count: int

    @property
    def feature_count(self) -> int:
        """Features."""
        return int(self.arrays["W_enc"].shape[1])

    def encode(self, x: Singles) -> Singles:
        """Features [tokens, features] of activations [tokens, dim]; what is not active is 0."""
        centred: Singles = x - self.arrays["b_dec"]
        h: Singles = centred @ self.arrays["W_enc"] + self.arrays["b_enc"]
        return top(np.maximum(h, 0), self.active_count)

    def decode(self, z: Singles) -> Singles:
        """Reconstruction [tokens, dim] from the active rows alone."""
        rows = [row[row != 0] @ self.arrays["W_dec"][row != 0] for row in z]
        y: Singles = np.stack(rows) + self.arrays["b_dec"]
        return y


def top(h: Singles, count: int) -> Singles:
    """The ``count`` largest values of each row above zero, the others 0."""
    least = np.partition(h, -count, axis=1)[:, -count, None]
    return np.where(h >= np.maximum(least, 1e-12), h, np.float32(0))


def load(folder: Path) -> Dictionary:
    """Read a folder of SAELens with a TopK.

    Raises:
        MissingPackageError: safetensors is not installed.
        BadDataError: A file is missing or broken, or the autoencoder is none of this kind.
    """
    config = json_in(folder / CONFIG, "a configuration of SAELens", 1 << 20)
    if config.get("architecture") != "topk" or config.get("rescale_acts_by_decoder_norm"):
        raise BadDataError(folder / CONFIG, "architecture", str(config)[:80], "topk, not rescaled by norms")
    try:
        stored = _safetensors().load_file(folder / WEIGHTS)
        arrays = {name: stored[name].astype(np.float32) for name in _NAMES}
    except MissingPackageError:
        raise
    except Exception as error:  # the reader's errors share no base below Exception
        raise BadDataError(
            folder / WEIGHTS, "", str(error)[:200], f"the tensors {', '.join(_NAMES)}"
        ) from error
    dim, features = arrays["W_enc"].shape
    wanted = {"b_enc": (features,), "W_dec": (features, dim), "b_dec": (dim,)}
    for name, shape in wanted.items():
        if arrays[name].shape != shape:
            raise BadDataError(folder / WEIGHTS, name, str(arrays[name].shape), str(shape))
    count = config.get("k")
    if not (isinstance(count, int) and 0 < count <= features):
        raise BadDataError(folder / CONFIG, "k", str(count)[:80], f"a whole number from 1 to {features}")
    return Dictionary(arrays=arrays, active_count=count)


def save(dictionary: Dictionary, folder: Path) -> None:
    """Write a TopK as a folder that SAELens loads; MissingPackageError where safetensors is not installed."""
    feature_count, dim = dictionary.arrays["W_dec"].shape
    config = {
        "architecture": "topk",
        "d_in": dim,
        "d_sae": feature_count,
        "k": dictionary.active_count,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "rescale_acts_by_decoder_norm": False,
    }
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: np.ascontiguousarray(array) for name, array in dictionary.arrays.items()}
    _safetensors().save_file(tensors, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")


def train(x: Singles, feature_count: int, active_count: int, step_count: int, seed: int = 1) -> Dictionary:
    """A TopK of activations [tokens, dim]: batches of 512, Adam, decoder rows of norm 1 (Bricken et al. 2023).

    Activations are scaled so that their mean square norm is dim; the scale folds into the biases at the end.
    """
    rng = np.random.default_rng(seed)
    dim = x.shape[1]
    scale = float(np.sqrt(dim / np.mean(np.sum(x.astype(np.float64) ** 2, axis=1))))
    scaled = x * np.float32(scale)
    mean = scaled.mean(axis=0, dtype=np.float64).astype(np.float32)
    spread = float(np.mean(np.sum((scaled - mean) ** 2, axis=1)))
    decoder = rng.standard_normal((feature_count, dim), dtype=np.float32)
    decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
    bias = np.zeros(feature_count, np.float32)
    arrays = {
        "W_enc": decoder.T * np.float32(_ENCODER_START),
        "b_enc": bias,
        "W_dec": decoder,
        "b_dec": mean.copy(),
    }
    moments = {name: [np.zeros_like(array), np.zeros_like(array)] for name, array in arrays.items()}
    for step in range(1, step_count + 1):
        batch = scaled[rng.integers(0, len(scaled), _BATCH)]
        slopes = gradients(arrays, batch, active_count, 2 / (len(batch) * spread))
        rows = arrays["W_dec"]
        slopes["W_dec"] -= np.sum(slopes["W_dec"] * rows, axis=1, keepdims=True) * rows
        done = step / step_count
        rate = _RATE * min(1.0, done / 0.05, (1 - done) / 0.4 + 1e-3)
        for name, slope in slopes.items():
            usual = []
            for at, value in enumerate((slope, slope * slope)):
                moments[name][at] += (value - moments[name][at]) * np.float32(1 - _BETAS[at])
                usual.append(moments[name][at] / np.float32(1 - _BETAS[at] ** step))
            arrays[name] -= np.float32(rate) * usual[0] / (np.sqrt(usual[1]) + np.float32(1e-8))
        arrays["W_dec"] /= np.maximum(np.linalg.norm(arrays["W_dec"], axis=1, keepdims=True), 1e-12)
    arrays["b_enc"] /= np.float32(scale)
    arrays["b_dec"] /= np.float32(scale)
    return Dictionary(arrays=arrays, active_count=active_count)


def gradients(arrays: dict[str, Singles], x: Singles, active_count: int, factor: float) -> dict[str, Singles]:
    """Of ``factor / 2`` times the squared error, by each array."""
    centred = x - arrays["b_dec"]
    z = top(np.maximum(centred @ arrays["W_enc"] + arrays["b_enc"], 0), active_count)
    d_y = (z @ arrays["W_dec"] + arrays["b_dec"] - x) * np.float32(factor)
    d_h = (d_y @ arrays["W_dec"].T) * (z > 0)
    d_bias = d_h.sum(axis=0)
    d_b_dec = d_y.sum(axis=0) - d_bias @ arrays["W_enc"].T
    return {"W_enc": centred.T @ d_h, "b_enc": d_bias, "W_dec": z.T @ d_y, "b_dec": d_b_dec}


def _safetensors() -> Any:
    with optional("safetensors", "llama"):
        import safetensors.numpy
    return safetensors.numpy
