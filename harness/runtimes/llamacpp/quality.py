"""What quantisation costs in quality: perplexity, divergence from a reference, agreement, and each token's confidence.

Chunks as llama-perplexity makes them: the text is tokenized once, cut into pieces of ``chunk_tokens``, the first token
of each is replaced by the model's own first token where it wants one, and the second half of each piece is scored.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.domain.base import Frozen
from harness.domain.scenario import Scenario
from harness.errors import EngineError, RefusedError
from harness.runtimes.llamacpp.session import LlamaSession


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
    """

    token_count: int
    perplexity: float
    perplexity_error: float
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


def standard_error(values: NDArray[np.float64]) -> float:
    """Standard error of the mean of independent values."""
    return float(values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else 0.0


class Columns(NamedTuple):
    """One model's predictions, a row a scored token: what a paired comparison needs.

    Attributes:
        confidence: Probability of the most likely token [n].
        is_right: Whether that token came [n].
        nll: Negative log-probability of the token that came, nats [n].
    """

    confidence: NDArray[np.float64]
    is_right: NDArray[np.bool_]
    nll: NDArray[np.float64]


class Scores:
    """What is kept of each chunk: a few numbers a token, never its logits."""

    def __init__(self) -> None:
        self._own: list[Columns] = []
        self._base: list[Columns] = []
        self._kl: list[NDArray[np.float64]] = []
        self._same: list[NDArray[np.bool_]] = []

    def add(self, logs: NDArray[np.float32], truth: NDArray[np.int64], base: NDArray[np.float32] | None = None) -> None:
        """One chunk: log-probabilities [rows, vocab_count] for the tokens ``truth`` [rows], and the reference's."""
        top = logs.argmax(axis=1)
        self._own.append(_columns(logs, top, truth))
        if base is not None:
            size = min(base.shape[1], logs.shape[1])
            p = np.exp(base[:, :size])
            self._kl.append(np.einsum("ij,ij->i", p, base[:, :size] - logs[:, :size], dtype=np.float64))
            base_top = base.argmax(axis=1)
            self._same.append(base_top == top)
            self._base.append(_columns(base, base_top, truth))

    def columns(self) -> tuple[Columns, Columns | None]:
        """Rows of this model, and of the reference, in the order of the text."""
        return _joined(self._own), _joined(self._base) if self._base else None

    def result(self) -> Quality:
        """All figures."""
        nll = np.concatenate([c.nll for c in self._own])
        perplexity = float(np.exp(nll.mean()))
        kl = np.concatenate(self._kl) if self._kl else None
        same = np.concatenate(self._same).astype(float) if self._same else None
        return Quality(
            token_count=int(nll.size),
            perplexity=perplexity,
            perplexity_error=perplexity * standard_error(nll),
            kl_divergence=float(kl.mean()) if kl is not None else None,
            kl_divergence_error=standard_error(kl) if kl is not None else None,
            top1_agreement_ratio=float(same.mean()) if same is not None else None,
            top1_agreement_error=standard_error(same) if same is not None else None,
        )


def _columns(logs: NDArray[np.float32], top: NDArray[np.intp], truth: NDArray[np.int64]) -> Columns:
    rows = np.arange(truth.size)
    # Single precision may round a sure token's probability above 1.
    confidence = np.minimum(np.exp(logs[rows, top].astype(np.float64)), 1.0)
    return Columns(confidence, top == truth, -logs[rows, truth].astype(np.float64))


def _joined(parts: Sequence[Columns]) -> Columns:
    return Columns._make(np.concatenate(column) for column in zip(*parts, strict=True))


class QualityJob(Frozen, frozen=True, kw_only=True):
    """What to score.

    Attributes:
        model: GGUF file.
        text: Text file.
        reference: Least quantized GGUF file to compare with; empty for none.
        columns: ``.npz`` file for the rows of both (``FIELD`` and ``base FIELD`` of :class:`Columns`); empty for none.
        chunk_tokens: Length of a chunk.
        chunk_count: Chunks from the beginning; 0 for all.
        thread_count: Threads; 0 for the physical cores.
    """

    model: str
    text: str
    reference: str = ""
    columns: str = ""
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


def run_try(arguments: dict[str, Any], emit: Callable[..., None]) -> None:
    """Child's entry: whether ``model`` (a path) predicts tokens of ``text`` (a path) at all; emits ``tried``.

    Raises:
        RefusedError: The model predicts no next token, or the text is shorter than two chunks.
    """
    chunk_tokens: int = arguments.get("chunk_tokens", 512)
    with LlamaSession(Path(arguments["model"]), Scenario(context_tokens=64), batch_tokens=64) as session:
        tokens = session.tokenize(Path(arguments["text"]).read_text(encoding="utf-8"))
        _check_length(tokens, chunk_tokens)
        try:
            session.decode(tokens[:8], position=0)
            is_finite = bool(np.isfinite(session.logits()).all())
        except EngineError as error:
            raise RefusedError(f"the model predicts no next token: {error}") from error
    if not is_finite:
        raise RefusedError("the model's predictions are no finite numbers")
    emit("tried", {"token_count": len(tokens)})


def _check_length(tokens: Sequence[int], chunk_tokens: int) -> None:
    if len(tokens) < 2 * chunk_tokens:
        raise RefusedError(f"the text has {len(tokens)} tokens: at least {2 * chunk_tokens} are needed")


def run_quality(arguments: dict[str, Any], emit: Callable[..., None]) -> None:
    """Child's entry; emits ``quality``, and ``progress`` after each chunk.

    Raises:
        RefusedError: The text is shorter than two chunks.
        EngineError: The model's predictions are no numbers.
    """
    import msgspec

    job = msgspec.convert(arguments, QualityJob)
    scenario = Scenario(context_tokens=job.chunk_tokens, thread_count=job.thread_count)
    model = LlamaSession(Path(job.model), scenario, batch_tokens=job.chunk_tokens)
    base = LlamaSession(Path(job.reference), scenario, batch_tokens=job.chunk_tokens) if job.reference else None
    tokens = model.tokenize(Path(job.text).read_text(encoding="utf-8"))
    _check_length(tokens, job.chunk_tokens)
    scores = Scores()
    for chunk in chunks_of(tokens, job.chunk_tokens, job.chunk_count, model.model.begin_token):
        truth = np.array(chunk[len(chunk) // 2 + 1 :], np.int64)
        logs = score(model, chunk)
        if not np.isfinite(logs).all():
            raise EngineError("its predictions are no finite numbers")
        scores.add(logs, truth, score(base, chunk) if base else None)
        emit("progress", scores.result().perplexity)
    if job.columns:
        save_columns(Path(job.columns), *scores.columns())
    emit("quality", scores.result())


def save_columns(path: Path, own: Columns, base: Columns | None) -> None:
    """Keep rows for the parent."""
    told = own._asdict() | ({f"base {name}": column for name, column in base._asdict().items()} if base else {})
    np.savez(path, **told)


def load_columns(path: Path) -> tuple[Columns, Columns]:
    """Rows of a model and of its reference.

    Raises:
        KeyError: There was no reference.
    """
    with np.load(path, allow_pickle=False) as found:
        own, base = (Columns._make(found[f"{side}{name}"] for name in Columns._fields) for side in ("", "base "))
    return own, base
