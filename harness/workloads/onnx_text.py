"""A text model of ONNX Runtime as a part: a sentence encoder or an NLI cross-encoder, in a folder of the model hub."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from harness.arrays import Singles
from harness.domain.foreign import json_in
from harness.errors import BadDataError
from harness.onnx.session import OnnxSession
from harness.runtimes._rows import Tokenized
from harness.workloads.passes import Meter, Op, Pass

MOST_TOKENS: Final = 512
_CONFIG_BYTES: Final = 1 << 20
_LABEL: Final = "contradict"


class OnnxText(Tokenized):
    """A graph with ``model.onnx``, ``tokenizer.json`` and ``config.json`` beside it, run for one text or pair at a time.

    Raises:
        MissingPackageError: onnxruntime or tokenizers is not installed.
        BadDataError: A file is missing, or is not what it should be.
        EngineError: ONNX Runtime refused the graph.
    """

    def __init__(self, folder: Path, meter: Meter, part: str, *, thread_count: int = 1) -> None:
        self._folder = folder
        self.name, self.path, self._meter, self._part = folder.name, folder / "model.onnx", meter, part
        self._engine = OnnxSession(self.path, thread_count=thread_count)
        width = self._engine.raw.get_inputs()[0].shape[1]
        if isinstance(width, int):
            self._tokenizer.enable_padding(length=width)
        else:
            width = MOST_TOKENS
        self._tokenizer.enable_truncation(width)
        if part == "encoder":
            self.dim = self.embed(["a"]).shape[1]

    def _forward(self, text: Any) -> Any:
        """The first output of a text or a pair of texts [outputs]; the mean over the tokens where it is of each."""
        coded = self._tokenizer.encode(*text) if isinstance(text, tuple) else self._tokenizer.encode(text)
        feeds = {
            "input_ids": np.array([coded.ids], np.int64),
            "attention_mask": np.array([coded.attention_mask], np.int64),
            "token_type_ids": np.array([coded.type_ids], np.int64),
        }
        with self._meter.timed(Pass(part=self._part, op=Op.EMBED, tokens=len(coded.ids))):
            output = self._engine.run(feeds)[0][0]
        if output.ndim == 2:
            return output[np.array(coded.attention_mask) == 1].mean(axis=0)
        return output

    def embed(self, texts: Sequence[str]) -> Singles:
        """Unit vectors [len(texts), dim]."""
        rows = []
        for text in texts:
            vector = self._forward(text).astype(np.float32)
            rows.append(vector / max(float(np.linalg.norm(vector)), 1e-12))
        return np.stack(rows)

    def contradicts(self, one: str, other: str) -> float:
        """Softmax of the label that begins with "contradict"; BadDataError where the configuration names none."""
        path = self._folder / "config.json"
        named = json_in(path, "a configuration", _CONFIG_BYTES).get("id2label")
        logits = self._forward((one, other))
        shares = np.exp(logits - logits.max())
        for key, label in named.items() if isinstance(named, dict) else ():
            if (
                str(label).lower().startswith(_LABEL)
                and key.isdigit()
                and int(key) < len(shares) == len(named)
            ):
                return float(shares[int(key)] / shares.sum())
        raise BadDataError(
            path, "id2label", str(named)[:80], f"{len(shares)} labels, of which one is {_LABEL}ion"
        )
