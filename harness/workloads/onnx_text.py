"""Text models of ONNX Runtime as parts: a sentence encoder, or an NLI cross-encoder, in a folder of the model hub."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from harness.arrays import Singles
from harness.domain.foreign import json_in
from harness.errors import BadDataError, RefusedError
from harness.onnx.session import OnnxSession
from harness.runtimes._rows import Tokenized
from harness.workloads.passes import Meter, Op, Pass

MOST_TOKENS: Final = 512
_CONFIG_BYTES: Final = 1 << 20


class OnnxText(Tokenized):
    """A graph with ``model.onnx`` (or ``onnx/model.onnx``), ``tokenizer.json`` and ``config.json`` beside it.

    Raises:
        MissingPackageError: onnxruntime or tokenizers is not installed.
        BadDataError: A file is missing, or is not what it should be.
        EngineError: ONNX Runtime refused the graph.
    """

    def __init__(self, folder: Path, meter: Meter, part: str, *, thread_count: int = 1) -> None:
        self._folder = folder
        self.name = folder.name
        self.meter = meter
        self.part = part
        self.config = json_in(folder / "config.json", "a configuration", _CONFIG_BYTES)
        self._tokenizer.enable_truncation(MOST_TOKENS)
        path = folder / "model.onnx"
        if not path.is_file():
            path = folder / "onnx" / "model.onnx"
        self.path = path
        self._engine = OnnxSession(path, thread_count=thread_count)
        width = self._engine.raw.get_inputs()[0].shape[1]
        self._fixed_tokens = width if isinstance(width, int) else 0
        if self._fixed_tokens:
            self._tokenizer.enable_truncation(self._fixed_tokens)

    def forward(self, texts: Sequence[Any]) -> tuple[Any, Any]:
        """The first output, and the mask [rows, tokens], of texts or pairs of texts in one batch."""
        coded = self._tokenizer.encode_batch(list(texts))
        width = self._fixed_tokens or max(len(each.ids) for each in coded)
        ids, mask, types = np.zeros((3, len(coded), width), np.int64)
        for row, each in enumerate(coded):
            ids[row, : len(each.ids)] = each.ids
            types[row, : len(each.ids)] = each.type_ids
            mask[row, : len(each.ids)] = 1
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        with self.meter.timed(Pass(part=self.part, op=Op.EMBED, tokens=ids.size)):
            return self._engine.run(feeds)[0], mask


class OnnxEncoder(OnnxText):
    """A sentence encoder: the mean over the tokens where the graph gives a vector for each (Sentence-BERT, 2019)."""

    def __init__(self, folder: Path, meter: Meter, *, thread_count: int = 1) -> None:
        super().__init__(folder, meter, "encoder", thread_count=thread_count)
        self.dim = self.embed(["a"]).shape[1]

    def embed(self, texts: Sequence[str]) -> Singles:
        """Unit vectors [len(texts), dim]."""
        rows = []
        for text in texts:
            output, mask = self.forward([text])
            vector = output.astype(np.float32)[0]
            if vector.ndim == 2:
                vector = vector[mask[0] == 1].mean(axis=0)
            rows.append(vector / max(float(np.linalg.norm(vector)), 1e-12))
        return np.stack(rows)


class PairClassifier(OnnxText):
    """An NLI cross-encoder, which a user brings; ``labels`` are those of ``id2label`` in small letters."""

    def __init__(self, folder: Path, meter: Meter, *, thread_count: int = 1) -> None:
        super().__init__(folder, meter, "nli", thread_count=thread_count)
        named = self.config.get("id2label")
        if not isinstance(named, dict) or not all(key.isdigit() for key in named):
            raise BadDataError(
                folder / "config.json", "id2label", str(named)[:80], 'labels, {"0": "entailment", ...}'
            )
        self.labels = [str(named[key]).lower() for key in sorted(named, key=int)]

    def chances(self, pairs: Sequence[tuple[str, str]], label: str) -> list[float]:
        """Softmax of the first label that begins with ``label``, for each pair.

        Raises:
            RefusedError: There is no such label.
            BadDataError: The graph gives another number of labels.
        """
        places = [at for at, known in enumerate(self.labels) if known.startswith(label)]
        if not places:
            raise RefusedError(f"{self.name} has the labels {', '.join(self.labels)}, and none for {label!r}")
        scores = self.forward(pairs)[0]
        if scores.shape[1:] != (len(self.labels),):
            raise BadDataError(self._folder, "logits", str(list(scores.shape)), f"[rows, {len(self.labels)}]")
        shares = np.exp(scores - scores.max(1, keepdims=True))
        return [float(row[places[0]] / row.sum()) for row in shares]
