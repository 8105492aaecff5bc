"""What quantisation costs in quality: perplexity, divergence from a reference, agreement, and each token's confidence.

Chunks as llama-perplexity makes them: the text is tokenized once, cut into pieces of ``chunk_tokens``, the
first token of each is replaced by the model's own first token where it wants one, and the second half of each
piece is scored.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from harness.core.arrays import Doubles, Flags, Integers, Singles
from harness.core.ports import Session
from harness.core.quality import TextScore


@runtime_checkable
class Scored(Session, Protocol):
    """A session that shows the logits of a whole batch."""

    def all_logits(self) -> Singles:
        """Logits [kept_count, vocab_count] of the last decode in the order of its tokens."""


def log_probabilities(logits: Singles) -> Singles:
    """Log softmax over the last axis: [rows, vocab_count] to the same; sums in double precision."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    norm = np.log(np.exp(shifted).sum(axis=-1, keepdims=True, dtype=np.float64))
    return np.asarray(shifted - norm.astype(np.float32), np.float32)


def standard_error(values: Doubles) -> float:
    """Standard error of the mean of independent values."""
    if values.size > 1:
        return float(values.std(ddof=1) / np.sqrt(values.size))
    return 0.0


class Columns(NamedTuple):
    """One model's predictions, a row a scored token: what a paired comparison needs.

    Attributes:
        confidence: Probability of the most likely token [n].
        is_right: Whether that token came [n].
        nll: Negative log-probability of the token that came, nats [n].
    """

    confidence: Doubles
    is_right: Flags
    nll: Doubles


class Scores:
    """What is kept of each chunk: a few numbers a token, never its logits."""

    def __init__(self) -> None:
        self._chunks: list[tuple[NDArray[Any], ...]] = []

    def add(self, logs: Singles, truth: Integers, base: Singles) -> None:
        """One chunk: log-probabilities [rows, vocab_count] for the tokens ``truth`` [rows], and the reference's."""
        size = min(base.shape[1], logs.shape[1])
        moved = base[:, :size] - logs[:, :size]
        kl = np.einsum("ij,ij->i", np.exp(base[:, :size]), moved, dtype=np.float64)
        agrees = base.argmax(axis=1) == logs.argmax(axis=1)
        self._chunks.append((*_columns(logs, truth), *_columns(base, truth), kl, agrees))

    def _joined(self) -> list[NDArray[Any]]:
        return [np.concatenate(parts) for parts in zip(*self._chunks, strict=True)]

    def columns(self) -> tuple[Columns, Columns]:
        """Rows of this model, and of the reference, in the order of the text."""
        joined = self._joined()
        return Columns(*joined[:3]), Columns(*joined[3:6])

    def result(self) -> TextScore:
        """All figures."""
        _, _, nll, *_, kl, agrees = self._joined()
        same = agrees.astype(float)
        perplexity = float(np.exp(nll.mean()))
        return TextScore(
            token_count=int(nll.size),
            perplexity=perplexity,
            perplexity_error=perplexity * standard_error(nll),
            kl_divergence=float(kl.mean()),
            kl_divergence_error=standard_error(kl),
            top1_agreement_ratio=float(same.mean()),
            top1_agreement_error=standard_error(same),
        )


def _columns(logs: Singles, truth: Integers) -> Columns:
    # Single precision may round a sure token's probability above 1.
    confidence = np.minimum(np.exp(logs.max(axis=1).astype(np.float64)), 1.0)
    nll = -logs[np.arange(truth.size), truth].astype(np.float64)
    return Columns(confidence, logs.argmax(axis=1) == truth, nll)


def chunks_of(tokens: Sequence[int], size: int, most: int, begin_token: int | None) -> list[list[int]]:
    """Whole chunks, each with the model's first token in place of its own first one, if it has one."""
    first = [] if begin_token is None else [begin_token]
    count = len(tokens) // size
    starts = range(0, size * min(count, most or count), size)
    return [[*first, *tokens[start + len(first) : start + size]] for start in starts]


def score(session: Scored, chunk: Sequence[int]) -> Singles:
    """Log-probabilities of the tokens after the first half of a chunk: [chunk - 1 - chunk // 2, vocab_count]."""
    first = len(chunk) // 2
    session.clear()
    session.decode(chunk[:first], position=0, logits="none")
    session.decode(chunk[first:-1], position=first, logits="all")
    return log_probabilities(session.all_logits())


def text_nll(session: Scored, text: str, chunk_count: int, chunk_tokens: int = 512) -> Doubles:
    """Negative log-probability (nats) of each scored token of the first chunks of ``text`` [n]."""
    losses = []
    begin_token = getattr(session, "begin_token", None)  # others put it there while they cut the text
    for chunk in chunks_of(session.tokenize(text), chunk_tokens, chunk_count, begin_token):
        truth = chunk[len(chunk) // 2 + 1 :]
        losses.append(-score(session, chunk)[range(len(truth)), truth].astype(np.float64))
    return np.concatenate(losses)
