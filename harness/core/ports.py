"""Protocols between the layers: what a runtime and a session promise."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from harness.core.record import EngineIdentity
from harness.core.scenario import Scenario

Emit = Callable[[str, Any], None]
"""How a child tells what happens: the name of an event, and its data as what JSON can hold."""


@runtime_checkable
class Session(Protocol):
    """One loaded model with one KV cache, in the process that calls it."""

    vocab_count: int
    context_tokens: int

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of ``text``; ``parse_special`` lets its words name special tokens (``<|im_end|>``)."""

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Text of token ids; undecodable bytes become U+FFFD."""

    def decode(
        self, tokens: Sequence[int], *, position: int, sequence: int = 0, logits: str = "last"
    ) -> None:
        """Run ``tokens`` through the model at ``position`` of ``sequence``.

        ``logits`` says for which tokens logits are kept: ``none``, ``last`` or ``all``. Returns when they are
        computed.

        Raises:
            EngineError: The engine refused the batch.
        """

    def decode_rows(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        sequences: Sequence[int],
        keep: Sequence[bool] | None = None,
    ) -> None:
        """Run one batch of tokens, each at its own position of its own sequence.

        ``keep`` says whose logits are kept, all when None; ``logits(i)`` then counts the kept ones in this
        order.

        Raises:
            EngineError: The engine refused the batch.
        """

    def logits(self, index: int = -1) -> NDArray[np.float32]:
        """Logits [vocab_count] of the ``index``-th token of the last ``decode`` that kept them.

        The array is a view that the next ``decode`` overwrites.
        """

    def greedy(self, index: int = -1) -> int:
        """Most likely next token after the ``index``-th kept one."""

    def truncate(self, position: int, *, sequence: int = 0) -> None:
        """Forget all of ``sequence`` from ``position`` on."""

    def fork(self, source: int, target: int) -> None:
        """Make ``target`` share all that ``source`` has in the cache."""

    def clear(self) -> None:
        """Forget every sequence."""

    def close(self) -> None:
        """Free the model and the cache."""


class EndPass(Exception):  # noqa: N818  no error: a tap has what it wanted
    """Raised by a tap to end the pass there: what comes later is not computed, where the engine can stop.

    The pass then has no logits, and the cache of later layers is not written: clear the session before the
    next pass.
    """


class Tap(Protocol):
    """Reads, and may replace, named intermediate results of a model while it runs.

    A session opened with ``tap=`` asks for each named result of each pass. Names are the engine's own and
    change with its version; in llama.cpp ``l_out-15`` is the residual stream after block 15.
    """

    def wants(self, name: str) -> bool:
        """Whether this result is wanted; asked once for each name, so the answer must not change."""

    def __call__(self, name: str, values: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """Take one result; values of the same shape to go on with, or None to leave the pass as it is.

        ``values`` are [token_count, dim] of one physical batch, or [..., token_count, dim] where the result
        has more axes (``kq_soft_max`` is [head_count, token_count, cache_tokens]); a copy that may be kept.

        Raises:
            EndPass: Nothing later is wanted.
        """


class Runtime(Protocol):
    """One runtime. Its module ends in ``RUNTIME = ...`` and imports the engine inside functions only.

    A runtime may also have ``formats`` (of ``gguf onnx``: what it reads, so that others are refused at once),
    ``package() -> str``: what brings it, with its version, or its file's path: results of another one are not
    reused, ``entry``: the child's ``package.module:function`` that measures it, where it opens no session: it
    takes the job, as the type that its first parameter is annotated with, and :data:`Emit`; and
    ``attach(url)``: a server that is there already, in place of ``open``.
    """

    name: str

    def missing(self) -> str | None:
        """Why it cannot be used here (package not installed, no such device); None when it can."""

    def identity(self, scenario: Scenario) -> EngineIdentity:
        """Name, version and build of the engine."""

    def open(self, path: Path, scenario: Scenario) -> Session:
        """Load a model.

        Raises:
            MissingPackageError: The engine is not installed.
            EngineError: The engine refused the file.
        """
