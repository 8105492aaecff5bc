"""The residual stream of a language model, read and changed while it runs, through a tap on llama.cpp.

Some tokens, the first of a text mostly, have norms many times the others': attention sinks, not content (Sun et al.
2024, "Massive Activations in Large Language Models"). They are told apart, and left as they are.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from harness.arrays import Flags, Singles
from harness.catalog.gguf import read_gguf
from harness.errors import EngineError, RefusedError
from harness.ports import EndPass
from harness.runtimes.llamacpp.quality import log_probabilities
from harness.workloads.parts import SystemParts
from harness.workloads.parts.language import LanguageModel

WINDOW_TOKENS: Final = 512
"""Most tokens of a text that are read: one physical batch, so that a tap sees them together."""
MASSIVE_RATIO: Final = 8.0
"""A token whose norm is more than this multiple of the median is massive."""


class ResidualStream:
    """The stream after one block, 0 for the middle one; the tap of a session of its own (weights are mapped once).

    Raises:
        RefusedError: No such block, or the last one: llama.cpp computes it for tokens alone whose logits are asked for.
    """

    def __init__(self, parts: SystemParts, layer: int = 0, *, thread_count: int = 1) -> None:
        assert parts.language is not None
        self.path = path = parts.language.path
        shape = read_gguf(path).shape()
        layer_count, self.dim = shape.layer_count, shape.hidden_dim
        self.layer = layer or layer_count // 2
        if not 0 <= self.layer < layer_count - 1:
            raise RefusedError(f"layer {layer}: {path.name} has blocks 0 to {layer_count - 2} before its last one")
        self._name = f"l_out-{self.layer}"
        self._taken: Singles | None = None
        self._change: Callable[[Singles], Singles] | None = None
        self.language = LanguageModel.open(path, thread_count=thread_count, context_tokens=WINDOW_TOKENS, tap=self)

    def wants(self, name: str) -> bool:
        """That result alone."""
        return name == self._name

    def __call__(self, name: str, values: Singles) -> Singles | None:
        """Keep the values and end the pass there, or change them and go on."""
        self._taken = values
        if self._change is None:
            raise EndPass
        return self._change(values)

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text's beginning, :data:`WINDOW_TOKENS` at most; RefusedError for fewer than two."""
        ids = self.language.session.tokenize(text)[:WINDOW_TOKENS]
        if len(ids) < 2:
            raise RefusedError(f"a text of {len(ids)} tokens has no activations to look at: {text[:40]!r}")
        return ids

    def read(self, tokens: Sequence[int]) -> Singles:
        """Activations [tokens, dim]; EngineError where the model computes none of that name for each token."""
        self._taken, self._change = None, None
        self.language.forget()
        self.language.read(tokens, logits="none")
        self.language.forget()
        if self._taken is None or len(self._taken) != len(tokens):
            raise EngineError(f"no result {self._name!r} for each of {len(tokens)} tokens")
        return self._taken

    def loss(self, tokens: Sequence[int], change: Callable[[Singles], Singles] = lambda values: values) -> float:
        """Mean loss of the tokens from the third on, nats, with ordinary tokens of the stream changed."""

        def ordinary_changed(values: Singles) -> Singles:
            kept = ordinary(values)
            values[kept] = change(values[kept])
            return values

        self._change = ordinary_changed
        self.language.forget()
        self.language.read(tokens, logits="all")
        session = self.language.session
        logs = log_probabilities(np.stack([session.logits(at) for at in range(1, len(tokens) - 1)]))
        return -float(logs[range(len(logs)), tokens[2:]].mean(dtype=np.float64))


def ordinary(values: Singles) -> Flags:
    """Which tokens [tokens] are not massive."""
    norms = np.linalg.norm(values, axis=1)
    kept: Flags = norms <= MASSIVE_RATIO * np.median(norms)
    return kept
