"""Tokens that stand anywhere, for engines that run one sequence at a time, and what their sessions have in common."""

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from harness.core.arrays import Singles
from harness.core.errors import BadDataError, EngineError, RefusedError, optional
from harness.core.foreign import read_limited

TOKENIZER_FILE: Final = "tokenizer.json"
_TOKENIZER_BYTES: Final = 64 << 20


def check_logits(logits: str) -> None:
    """Refuse (ValueError) what ``decode`` may not be asked for: anything but ``none last all``."""
    if logits not in {"none", "last", "all"}:
        raise ValueError(f"logits must be none, last or all, got {logits!r}")


class Tokenized:
    """Text of a model whose folder holds ``tokenizer.json`` (BadDataError where it does not)."""

    _folder: Path

    @cached_property
    def _tokenizer(self) -> Any:
        # Only when text is asked for: a vocabulary of 49,152 takes 36 MB that running tokens does not need.
        with optional("tokenizers", "onnx"):
            from tokenizers import Tokenizer
        path = self._folder / TOKENIZER_FILE
        text = read_limited(path, _TOKENIZER_BYTES, "a tokenizer")
        try:
            tokenizer = Tokenizer.from_buffer(text)
        except Exception as error:  # the package raises plain Exceptions
            raise BadDataError(path, "", str(error)[:200], "a tokenizer of the package tokenizers") from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of ``text``; this tokenizer reads the names of special tokens always."""
        del parse_special
        return list(self._tokenizer.encode(text, add_special_tokens=add_special).ids)

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Text of token ids; undecodable bytes become U+FFFD."""
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=False))


class Closing(AbstractContextManager[Any]):
    """What holds an engine's memory until it is closed, or its ``with`` block ends."""

    @abstractmethod
    def close(self) -> None:
        """Free the model and the cache; safe to call twice."""

    def __exit__(self, *_: object) -> None:
        self.close()


class Rows(Closing):
    """What all sessions do with the logits of the last decode."""

    kept_count: int

    @abstractmethod
    def all_logits(self) -> Singles:
        """Return a view of the last decode's logits [kept_count, vocab_count], in the order of its tokens."""

    def logits(self, index: int = -1) -> Singles:
        """Logits [vocab_count] of the ``index``-th token kept by the last decode; EngineError where none are.

        A view (a copy where the graph computes in half precision): the next decode overwrites it.
        """
        if not -self.kept_count <= index < self.kept_count:
            raise EngineError(f"no logits at {index}: the last decode kept {self.kept_count}")
        row: Singles = self.all_logits()[index]
        return row

    def greedy(self, index: int = -1) -> int:
        """Most likely next token after the ``index``-th kept one."""
        return int(self.logits(index).argmax())


class OneSequence(Rows):
    """The part of :class:`harness.core.ports.Session` that is alike for engines whose cache holds one sequence."""

    engine: ClassVar[str]
    vocab_count: int
    context_tokens: int
    _kept: NDArray[Any]
    _length = 0

    @abstractmethod
    def _forward(self, tokens: Sequence[int], logits: str) -> NDArray[Any]:
        """Run ``tokens`` at the end of the cache.

        Logits [kept, vocab_count] of none, the last or all of them.
        """

    def length(self) -> int:
        """Tokens in the cache, which ``_forward`` counts."""
        return self._length

    @abstractmethod
    def _cut(self, position: int) -> None:
        """Forget all from ``position`` on; anything it raises means that the engine cannot."""

    def all_logits(self) -> Singles:
        """Return a view of the last decode's logits [kept_count, vocab_count], in the order of its tokens."""
        return np.asarray(self._kept, np.float32)

    def _keep_nothing(self) -> None:
        self.kept_count = 0
        self._kept = np.empty((0, self.vocab_count), np.float32)

    def decode(
        self, tokens: Sequence[int], *, position: int, sequence: int = 0, logits: str = "last"
    ) -> None:
        """Run ``tokens`` through the model at ``position``, the end of the sequence.

        Raises:
            EngineError: Another sequence or place, the context is full, or the engine failed.
            ValueError: ``logits`` is none of ``none last all``.
        """
        check_logits(logits)
        self._only(sequence)
        if position != self._length:
            raise EngineError(f"sequence 0 has {self._length} tokens, got a batch at {position}")
        if position + len(tokens) > self.context_tokens:
            raise EngineError("no room left in the KV cache")
        self.kept_count = 0
        try:
            self._kept = self._forward(tokens, logits)
        except Exception as error:
            raise EngineError(
                f"{self.engine} failed on {len(tokens)} tokens at {position}: {error}"
            ) from error
        self.kept_count = len(self._kept)

    def truncate(self, position: int, *, sequence: int = 0) -> None:
        """Forget all from ``position`` on; EngineError where the engine cannot cut there."""
        self._only(sequence)
        if position >= self._length:
            return
        try:
            self._cut(position)
        except Exception as error:
            raise EngineError(f"{self.engine} could not cut the cache at {position}: {error}") from error
        self._length = position

    def fork(self, source: int, target: int) -> None:
        """Always refused: the cache belongs to one sequence."""
        raise RefusedError(
            f"{self.engine} cannot share sequence {source} with {target}: take another runtime"
        )

    def decode_rows(self, tokens: Sequence[int], *_of_rows: Any) -> None:
        """Always refused: rows of several sequences need a cache of several."""
        raise RefusedError(f"{self.engine} keeps one sequence, got {len(tokens)} rows: take another runtime")

    def clear(self) -> None:
        """Forget everything."""
        self.truncate(0)

    def _only(self, sequence: int) -> None:
        if sequence != 0:
            raise EngineError(f"{self.engine} keeps one sequence: only sequence 0")
