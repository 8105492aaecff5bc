"""What quantisation costs in quality: perplexity, divergence from a reference, agreement, calibration.

Chunks as llama-perplexity makes them: the text is tokenized once, cut into pieces of ``chunk_tokens``, the first token
of each is replaced by the model's own first token where it wants one, and the second half of each piece is scored.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from harness.backends.llamacpp.session import LlamaSession
from harness.domain.base import Frozen
from harness.domain.scenario import Scenario
from harness.errors import RefusedError

BIN_COUNT: Final = 15


class Quality(Frozen, frozen=True, kw_only=True):
    """Quality on one text.

    Attributes:
        token_count: Tokens scored.
        perplexity: exp(mean negative log-likelihood).
        perplexity_error: Standard error: perplexity x standard error of the mean.
        kl_divergence: Mean KL(reference || this), nats; None without a reference.
        kl_divergence_error: Its standard error.
        top1_agreement_ratio: Share of tokens where both have the same most likely token.
        top1_agreement_error: Its standard error.
        calibration_error: Expected calibration error of the most likely token (15 equal bins of confidence).
    """

    token_count: int
    perplexity: float
    perplexity_error: float
    calibration_error: float
    kl_divergence: float | None = None
    kl_divergence_error: float | None = None
    top1_agreement_ratio: float | None = None
    top1_agreement_error: float | None = None


def log_probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log softmax over the last axis: [rows, vocab_count] to the same; sums in double precision."""
    top = logits.max(axis=-1, keepdims=True)
    shifted = logits - top
    norm = np.log(np.exp(shifted).sum(axis=-1, keepdims=True, dtype=np.float64))
    return np.asarray(shifted - norm.astype(np.float32), np.float32)


def expected_calibration_error(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> float:
    """Sum over bins of (share of tokens) x |mean confidence - accuracy|, BIN_COUNT bins of equal width.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks" (arXiv:1706.04599), equation 3.
    """
    bins = np.minimum((confidence * BIN_COUNT).astype(int), BIN_COUNT - 1)
    weight = np.bincount(bins, minlength=BIN_COUNT)
    gap = np.bincount(bins, confidence, BIN_COUNT) - np.bincount(bins, correct.astype(float), BIN_COUNT)
    return float(np.abs(gap[weight > 0]).sum() / confidence.size)


def standard_error(values: NDArray[np.float64]) -> float:
    """Standard error of the mean of independent values."""
    return float(values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else 0.0


class Scores:
    """Sums over chunks; memory of one chunk's logits at a time."""

    def __init__(self) -> None:
        self._nll: list[NDArray[np.float64]] = []
        self._kl: list[NDArray[np.float64]] = []
        self._same: list[NDArray[np.bool_]] = []
        self._confidence: list[NDArray[np.float64]] = []
        self._correct: list[NDArray[np.bool_]] = []

    def add(self, logs: NDArray[np.float32], truth: NDArray[np.int64], base: NDArray[np.float32] | None = None) -> None:
        """One chunk: log-probabilities [rows, vocab_count] for the tokens ``truth`` [rows], and the reference's."""
        rows = np.arange(truth.size)
        top = logs.argmax(axis=1)
        self._nll.append(-logs[rows, truth].astype(np.float64))
        self._confidence.append(np.exp(logs[rows, top].astype(np.float64)))
        self._correct.append(top == truth)
        if base is not None:
            size = min(base.shape[1], logs.shape[1])
            p = np.exp(base[:, :size])
            self._kl.append(np.einsum("ij,ij->i", p, base[:, :size] - logs[:, :size], dtype=np.float64))
            self._same.append(base.argmax(axis=1) == top)

    def result(self) -> Quality:
        """All figures."""
        nll = np.concatenate(self._nll)
        perplexity = float(np.exp(nll.mean()))
        kl = np.concatenate(self._kl) if self._kl else None
        same = np.concatenate(self._same).astype(float) if self._same else None
        return Quality(
            token_count=int(nll.size),
            perplexity=perplexity,
            perplexity_error=perplexity * standard_error(nll),
            calibration_error=expected_calibration_error(
                np.concatenate(self._confidence), np.concatenate(self._correct)
            ),
            kl_divergence=float(kl.mean()) if kl is not None else None,
            kl_divergence_error=standard_error(kl) if kl is not None else None,
            top1_agreement_ratio=float(same.mean()) if same is not None else None,
            top1_agreement_error=standard_error(same) if same is not None else None,
        )


class QualityJob(Frozen, frozen=True, kw_only=True):
    """What to score.

    Attributes:
        model: GGUF file.
        text: Text file.
        reference: Least quantized GGUF file to compare with; empty for none.
        chunk_tokens: Length of a chunk.
        chunk_count: Chunks from the beginning; 0 for all.
        thread_count: Threads; 0 for the physical cores.
    """

    model: str
    text: str
    reference: str = ""
    chunk_tokens: int = 512
    chunk_count: int = 8
    thread_count: int = 0


def chunks_of(tokens: Sequence[int], size: int, most: int, begin_token: int | None) -> list[list[int]]:
    """Whole chunks, each with the model's first token in place of its own first one, if it has one."""
    count = len(tokens) // size
    chunks = [list(tokens[i * size : (i + 1) * size]) for i in range(min(count, most) if most else count)]
    if begin_token is not None:
        for chunk in chunks:
            chunk[0] = begin_token
    return chunks


def score(session: LlamaSession, chunk: Sequence[int]) -> NDArray[np.float32]:
    """Log-probabilities of the tokens after the first half of a chunk: [chunk - 1 - chunk // 2, vocab_count]."""
    first = len(chunk) // 2
    session.clear()
    session.decode(chunk[:first], position=0, logits="none")
    session.decode(chunk[first:-1], position=first, logits="all")
    return log_probabilities(session.all_logits())


def run_quality(arguments: dict[str, Any], emit: Callable[..., None]) -> None:
    """Child's entry; emits ``quality``, and ``progress`` after each chunk.

    Raises:
        RefusedError: The text is shorter than two chunks.
    """
    import msgspec

    job = msgspec.convert(arguments, QualityJob)
    scenario = Scenario(context_tokens=job.chunk_tokens, thread_count=job.thread_count)
    model = LlamaSession(Path(job.model), scenario, batch_tokens=job.chunk_tokens)
    base = LlamaSession(Path(job.reference), scenario, batch_tokens=job.chunk_tokens) if job.reference else None
    tokens = model.tokenize(Path(job.text).read_text(encoding="utf-8"))
    if len(tokens) < 2 * job.chunk_tokens:
        raise RefusedError(f"the text has {len(tokens)} tokens: at least {2 * job.chunk_tokens} are needed")
    scores = Scores()
    for chunk in chunks_of(tokens, job.chunk_tokens, job.chunk_count, model.model.begin_token):
        truth = np.array(chunk[len(chunk) // 2 + 1 :], np.int64)
        logs = score(model, chunk)
        scores.add(logs, truth, score(base, chunk) if base else None)
        emit("progress", scores.result().perplexity)
    emit("quality", scores.result())
