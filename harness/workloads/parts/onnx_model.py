"""One loader for ONNX models of text: a folder with model.onnx, tokenizer.json and config.json.

Sentence encoders (mean pooling, unit length), rerankers (one logit a pair) and NLI cross-encoders (labels from
``id2label`` of the config) all load this way, as the model hub stores them.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from harness.arrays import Integers, Singles
from harness.domain.foreign import json_in
from harness.errors import BadDataError, RefusedError
from harness.onnx.session import OnnxSession
from harness.runtimes._rows import Tokenized

MOST_TOKENS: Final = 512
_CONFIG_BYTES: Final = 1 << 20
_BATCH: Final = 32

Text = str | tuple[str, str]


class OnnxModel(Tokenized):
    """A text model in a folder.

    Args:
        folder: Holds ``model.onnx`` (or ``onnx/model.onnx``), ``tokenizer.json`` and ``config.json``.
        thread_count: CPU threads of ONNX Runtime.

    Attributes:
        fixed_tokens: Tokens of every row, where the graph takes no other number; shorter texts are filled up.

    Raises:
        MissingPackageError: onnxruntime or tokenizers is not installed.
        BadDataError: A file is missing or is not what it should be.
        EngineError: ONNX Runtime refused the graph.
    """

    def __init__(self, folder: Path, *, thread_count: int = 1) -> None:
        self.folder = self._folder = folder
        self.config = json_in(folder / "config.json", "a configuration", _CONFIG_BYTES)
        most = self.config.get("max_position_embeddings", MOST_TOKENS)
        self._tokenizer.enable_truncation(min(MOST_TOKENS, most if isinstance(most, int) and most > 0 else MOST_TOKENS))
        self.name = folder.name
        places = [folder / "model.onnx", folder / "onnx" / "model.onnx"]
        path = next((path for path in places if path.is_file()), places[0])
        self._engine = OnnxSession(path, thread_count=thread_count)
        shape = self._engine.raw.get_inputs()[0].shape
        if len(shape) != 2:
            raise BadDataError(path, "the first input", str(shape), "[rows, tokens]")
        self.fixed_tokens = shape[1] if isinstance(shape[1], int) else 0
        if self.fixed_tokens:
            self._tokenizer.enable_truncation(self.fixed_tokens)

    def forward(self, ids: Integers, mask: Integers, types: Integers) -> NDArray[Any]:
        """The first output of one pass of [rows, tokens]."""
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        first: NDArray[Any] = self._engine.run(feeds)[0]
        return first

    def passes(self, texts: Sequence[Text]) -> Iterator[tuple[list[int], NDArray[Any], Integers]]:
        """Texts or pairs of texts, 32 of like length at a time: their positions, the output, and the mask."""
        coded = self._tokenizer.encode_batch(list(texts))
        order = sorted(range(len(texts)), key=lambda at: len(coded[at].ids))
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            width = self.fixed_tokens or len(coded[rows[-1]].ids)
            ids, mask, types = np.zeros((3, len(rows), width), np.int64)
            for at, row in enumerate(rows):
                count = len(coded[row].ids)
                ids[at, :count] = coded[row].ids
                types[at, :count] = coded[row].type_ids
                mask[at, :count] = 1
            yield rows, self.forward(ids, mask, types), mask


class Encoder(OnnxModel):
    """A sentence encoder: vectors of unit length, the mean over the tokens where the graph gives one for each token.

    Source: Reimers and Gurevych 2019, "Sentence-BERT".
    """

    def __init__(self, folder: Path, *, thread_count: int = 1) -> None:
        super().__init__(folder, thread_count=thread_count)
        self.dim = self.embed(["a"]).shape[1]

    def embed(self, texts: Sequence[str]) -> Singles:
        """Vectors [len(texts), dim]."""
        rows: list[Singles] = [np.zeros(0, np.float32)] * len(texts)
        for places, output, mask in self.passes(texts):
            rows_here = pooled(output, mask)
            for place, vector in zip(places, rows_here, strict=True):
                rows[place] = vector
        return np.stack(rows)


def pooled(output: NDArray[Any], mask: Integers) -> Singles:
    """Unit vectors [rows, dim] of an output [rows, tokens, dim] or [rows, dim] and its mask [rows, tokens]."""
    vectors = output.astype(np.float32)
    if vectors.ndim == 3:
        weights = mask[:, :, None].astype(np.float32)
        vectors = (vectors * weights).sum(1) / weights.sum(1)
    unit: Singles = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit


class PairClassifier(OnnxModel):
    """A cross-encoder of pairs: an NLI model, or a reranker with one logit.

    Attributes:
        labels: Of the logits, lower case, from ``id2label`` of the config.
    """

    def __init__(self, folder: Path, *, thread_count: int = 1) -> None:
        super().__init__(folder, thread_count=thread_count)
        named = self.config.get("id2label")
        if not isinstance(named, dict) or not all(key.isdigit() for key in named):
            raise BadDataError(folder / "config.json", "id2label", str(named)[:80], 'labels, {"0": "entailment", ...}')
        self.labels = tuple(str(named[key]).lower() for key in sorted(named, key=int))

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Singles:
        """Logits [len(pairs), labels]; BadDataError where the graph gives another number than the config names."""
        rows = np.zeros((len(pairs), len(self.labels)), np.float32)
        for places, output, _ in self.passes(pairs):
            if output.shape[1:] != (len(self.labels),):
                expected = f"[rows, {len(self.labels)}], the labels of config.json"
                raise BadDataError(self.folder, "logits", str(list(output.shape)), expected)
            rows[places] = output
        return rows

    def has(self, label: str) -> bool:
        """Whether a label begins so."""
        return any(known.startswith(label) for known in self.labels)

    def probabilities(self, pairs: Sequence[tuple[str, str]], label: str) -> list[float]:
        """Softmax of the first label that begins so: ``entail``, ``contradict``; RefusedError where there is none."""
        if not self.has(label):
            raise RefusedError(f"{self.name} has the labels {', '.join(self.labels)}, and none for {label!r}")
        at = next(at for at, known in enumerate(self.labels) if known.startswith(label))
        scores = self.logits(pairs)
        chances = np.exp(scores - scores.max(1, keepdims=True))
        return [float(row[at] / row.sum()) for row in chances]


def folder_of(text: str) -> Path:
    """The folder that ``text`` names: a path, or ``hf:org/name``, whose three files the hub's client fetches once.

    Raises:
        BadDataError: There is no such folder.
        FetchError: The hub does not answer, or the repository has no such files.
    """
    if not text.startswith("hf:"):
        folder = Path(text)
        if not folder.is_dir():
            raise BadDataError(folder, "", "no such folder", "a folder with model.onnx, tokenizer.json, config.json")
        return folder
    from harness.catalog.fetch import snapshot

    return snapshot(text.removeprefix("hf:"), ["model.onnx", "onnx/model.onnx", "tokenizer.json", "config.json"])
