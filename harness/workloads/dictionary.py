"""A sparse autoencoder as arrays, read from a folder of SAELens or trained as a TopK with Adam.

h = (x - b_dec) W_enc + b_enc
z = the k largest values of h, of them those above zero (TopK)
y = z W_dec + b_dec

x [tokens, dim], W_enc [dim, features], W_dec [features, dim]. Sources: Gao et al. 2024, arXiv:2406.04093;
SAELens 6 for the folder. Other kinds of published dictionaries are SAELens's own to read.
"""

from pathlib import Path
from typing import Final, NamedTuple, Self

import numpy as np

from harness.arrays import Singles
from harness.domain.foreign import json_in
from harness.errors import BadDataError, optional

_BATCH: Final = 512
_RATE: Final = 3e-3
_ENCODER_START: Final = 0.1
"""Length of the encoder's columns before the first step: at full length the k loudest of many directions
overshoot."""
_BETAS: Final = (0.9, 0.99)


class Dictionary(NamedTuple):
    """One autoencoder (the arrays of SAELens by their names), of which ``active_count`` features are active at once."""

    arrays: dict[str, Singles]
    active_count: int

    @classmethod
    def untrained(cls, x: Singles, expansion_ratio: int, active_count: int, seed: int) -> Self:
        """Random directions around the mean of activations [tokens, dim]."""
        rng = np.random.default_rng(seed)
        decoder = rng.standard_normal((expansion_ratio * x.shape[1], x.shape[1]), dtype=np.float32)
        decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
        arrays = {
            "W_enc": decoder.T * np.float32(_ENCODER_START),
            "b_enc": np.zeros(len(decoder), np.float32),
            "W_dec": decoder,
            "b_dec": np.asarray(x.mean(axis=0), np.float32),
        }
        return cls(arrays, active_count)

    @classmethod
    def read(cls, folder: Path, dim: int) -> Self:
        """A TopK of SAELens for activations of a width.

        Raises:
            MissingPackageError: safetensors is not installed.
            BadDataError: A file is missing or broken, or the autoencoder is none of this kind or width.
        """
        with optional("safetensors", "llama"):
            from safetensors import SafetensorError
            from safetensors.numpy import load_file
        path = folder / "cfg.json"
        config = json_in(path, "a configuration of SAELens", 1 << 20)
        width, count = config.get("d_sae"), config.get("k")
        if (
            config.get("architecture") != "topk"
            or not isinstance(count, int)
            or not 0 < count <= int(width or 0)
        ):
            raise BadDataError(path, "", str(config)[:80], "topk, with k of d_sae features")
        shapes = {"W_enc": (dim, width), "b_enc": (width,), "W_dec": (width, dim), "b_dec": (dim,)}
        path = folder / "sae_weights.safetensors"
        try:
            arrays = load_file(path)
        except (OSError, SafetensorError) as error:
            raise BadDataError(path, "", str(error)[:200], "safetensors") from error
        found = {name: array.shape for name, array in arrays.items()}
        if found != shapes:
            raise BadDataError(path, "", str(found)[:200], str(shapes))
        return cls(arrays, count)

    def encode(self, x: Singles) -> Singles:
        """Features [tokens, features] of activations [tokens, dim]; what is not active is 0."""
        centred: Singles = x - self.arrays["b_dec"]
        h: Singles = centred @ self.arrays["W_enc"] + self.arrays["b_enc"]
        least = np.partition(h, -self.active_count, axis=1)[:, -self.active_count, None]
        return np.where(h >= np.maximum(least, 1e-12), h, np.float32(0))

    def decode(self, z: Singles) -> Singles:
        """Reconstruction [tokens, dim]."""
        y: Singles = z @ self.arrays["W_dec"] + self.arrays["b_dec"]
        return y

    def slopes(self, x: Singles) -> dict[str, Singles]:
        """Of half the squared error over the squared spread, by each array."""
        z = self.encode(x)
        d_y = (self.decode(z) - x) / np.sum((x - x.mean(axis=0)) ** 2)
        d_h = (d_y @ self.arrays["W_dec"].T) * (z > 0)
        d_bias = d_h.sum(axis=0)
        return {
            "W_enc": (x - self.arrays["b_dec"]).T @ d_h,
            "b_enc": d_bias,
            "W_dec": z.T @ d_y,
            "b_dec": d_y.sum(axis=0) - self.arrays["W_enc"] @ d_bias,
        }

    def train(self, x: Singles, step_count: int, seed: int = 1) -> None:
        """Fit the arrays, in place, to activations [tokens, dim]: batches of 512, Adam, decoder rows of norm 1.

        Steps of the biases are those of values with a root mean square of 1 (Bricken et al. 2023).
        """
        rng = np.random.default_rng(seed)
        scale = float(np.sqrt(np.mean(x.astype(np.float64) ** 2)))
        moments = {name: (np.zeros_like(array), np.zeros_like(array)) for name, array in self.arrays.items()}
        for step in range(1, step_count + 1):
            done = step / step_count
            rate = _RATE * min(1.0, done / 0.05, (1 - done) / 0.4 + 1e-3)
            for name, slope in self.slopes(x[rng.integers(0, len(x), _BATCH)]).items():
                first, second = moments[name]
                first += (slope - first) * (1 - _BETAS[0])
                second += (slope * slope - second) * (1 - _BETAS[1])
                length = rate / (1 - _BETAS[0] ** step)
                if slope.ndim == 1:
                    length *= scale
                self.arrays[name] -= length * first / (np.sqrt(second / (1 - _BETAS[1] ** step)) + 1e-12)
            self.arrays["W_dec"] /= np.linalg.norm(self.arrays["W_dec"], axis=1, keepdims=True)
