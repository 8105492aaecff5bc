"""From a model and a text to a trained autoencoder and everything that can be said of it."""

import time
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from harness.catalog.gguf import read_gguf
from harness.domain.base import Frozen
from harness.errors import RefusedError
from harness.workloads._language.activations import (
    WINDOW_TOKENS,
    Captured,
    OpenSession,
    block_name,
    capture,
    joined,
    norm_limit,
    ordinary,
    scenario_of,
)
from harness.workloads._language.texts import further_text, shipped_text, split_text, texts_of
from harness.workloads.sparse_autoencoder.features import Feature, top_features
from harness.workloads.sparse_autoencoder.metrics import Quality, quality
from harness.workloads.sparse_autoencoder.model import Floats, SparseAutoencoder
from harness.workloads.sparse_autoencoder.splice import LossReport, Overhead, losses, overhead
from harness.workloads.sparse_autoencoder.training import Plan, Trainer

EXPANSION_RATIO: Final = 8
STEP_COUNT: Final = 600
BATCH_TOKENS: Final = 512
TRAIN_TOKENS: Final = 80_000
"""Read to train on where the texts themselves are shorter."""


class Report(Frozen, frozen=True, kw_only=True):
    """Quality of one autoencoder; all JSON values.

    Attributes:
        tensor: The engine's name of what was encoded.
        train_tokens: Tokens trained on, massive ones left out.
        massive_count: Massive tokens left out.
        train: On the first tokens of the training text, as many as are held out.
        held_out: On later text that was not trained on.
        features: The most telling features with their contexts, from the training text.
    """

    model: str
    tensor: str
    plan: Plan
    train_tokens: int
    massive_count: int
    train_s: float
    train: Quality
    held_out: Quality
    loss: LossReport
    generation: Overhead
    features: tuple[Feature, ...]


class Material(NamedTuple):
    """Activations of two parts of a text after a layer, and the later part itself; massive tokens exceed ``limit``."""

    train: Captured
    held_out: Captured
    later_text: str
    limit: float
    layer: int

    def rows(self) -> tuple[Floats, Floats]:
        """(to train on, held out): activations of the ordinary tokens."""
        train, held = (part.values[ordinary(part.values, self.limit)] for part in (self.train, self.held_out))
        return train, held


def gather(
    open_session: OpenSession,
    path: Path,
    folder: Path | None = None,
    *,
    layer: int | None = None,
    thread_count: int = 1,
    least_tokens: int = TRAIN_TOKENS,
    cache: Path | None = None,
) -> Material:
    """Activations to train on, and others of later text; without a ``layer``, after the middle block.

    The middle is the block after half of a model's, counted from 0: 15 of SmolLM2-135M's 30.

    Held out is the last tenth of each text: of the one that ships, or of each file of a folder. A dictionary that is
    trained on few tokens learns them by heart, so that further text is read, to train on alone, where the texts are
    shorter than ``least_tokens``; ``texts.further_text`` says how it is kept apart from what is held out. ``cache``
    keeps what was read. RefusedError for no text, or too little; EngineError where the engine refused the model, or has
    no such layer.
    """
    layer = read_gguf(path).shape().layer_count // 2 if layer is None else layer
    texts = [shipped_text()] if folder is None else texts_of(folder)
    parts = [split_text(t) for t in texts]
    later = "\n".join(b for _, b in parts)

    def read(texts: list[str], limit: int = 0) -> Captured:
        told = "\0".join([f"{path.name} {path.stat().st_size} {layer} {limit}", *texts])  # other texts, another file
        kept = cache / f"activations-{sha256(told.encode()).hexdigest()[:16]}.npz" if cache else None
        if kept and kept.is_file():
            with np.load(kept, allow_pickle=False) as arrays:
                return Captured(**arrays)
        found = capture(open_session, path, texts, block_name(layer), thread_count=thread_count, limit_tokens=limit)
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.savez(kept, **found._asdict())
        return found

    first, held = read([a for a, _ in parts]), read([later])
    wanted = least_tokens - len(first.tokens)
    if wanted >= WINDOW_TOKENS:
        first = joined(first, read([further_text(texts, shipped=folder is not None)], wanted))
    return Material(first, held, later, norm_limit(first.values), layer)


def study(
    open_session: OpenSession,
    path: Path,
    material: Material,
    *,
    plan: Plan | None = None,
    thread_count: int = 1,
) -> tuple[SparseAutoencoder, Report]:
    """Train, and say all that can be said of the result; without a ``plan``, TopK-32 with eight features a dimension.

    Raises:
        RefusedError, EngineError: See :class:`~.training.Trainer` and :func:`~.splice.losses`.
    """
    x, held = material.rows()
    if len(held) == 0:
        raise RefusedError("no held-out tokens")
    plan = plan or Plan(
        feature_count=EXPANSION_RATIO * x.shape[1], step_count=STEP_COUNT, batch_tokens=min(BATCH_TOKENS, len(x))
    )
    begin = time.perf_counter()
    sae = Trainer(x, plan).run()
    train_s = time.perf_counter() - begin
    name, limit = block_name(material.layer), material.limit
    mean = x.mean(axis=0, dtype=np.float64).astype(np.float32)
    loss = losses(
        open_session, path, material.later_text, name, sae.reconstruct, mean, limit, thread_count=thread_count
    )
    generation = overhead(open_session, path, name, sae.reconstruct, limit, thread_count=thread_count)
    with closing(open_session(path, scenario_of(thread_count))) as session:
        features = top_features(sae, material.train, limit, session.detokenize)
    report = Report(
        model=path.name,
        tensor=name,
        plan=plan,
        train_tokens=len(x),
        massive_count=len(material.train.values) - len(x),
        train_s=train_s,
        train=quality(sae, x[: len(held)]),
        held_out=quality(sae, held),
        loss=loss,
        generation=generation,
        features=tuple(features),
    )
    return sae, report
