"""From a model and a text to a trained autoencoder and everything that can be said of it."""

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from harness.domain.base import Frozen
from harness.errors import RefusedError
from harness.workloads.sparse_autoencoder.activations import (
    Captured,
    OpenSession,
    block_name,
    capture,
    norm_limit,
    ordinary,
    scenario_of,
    shipped_text,
    split_text,
    texts_of,
)
from harness.workloads.sparse_autoencoder.features import Feature, top_features
from harness.workloads.sparse_autoencoder.metrics import Quality, quality
from harness.workloads.sparse_autoencoder.model import SparseAutoencoder
from harness.workloads.sparse_autoencoder.splice import LossReport, Overhead, losses, overhead
from harness.workloads.sparse_autoencoder.training import Plan, Progress, train

LAYER: Final = 15
EXPANSION_RATIO: Final = 8
STEP_COUNT: Final = 400
BATCH_TOKENS: Final = 512


class Report(Frozen, frozen=True, kw_only=True):
    """Quality of one autoencoder; all JSON values.

    Attributes:
        model: File name of the model.
        tensor: The engine's name of what was encoded.
        plan: How it was trained.
        train_tokens: Tokens trained on, massive ones left out.
        massive_count: Massive tokens left out.
        train_s: Duration of training.
        train: On the first tokens of the training text, as many as are held out.
        held_out: On later text that was not trained on.
        loss: Loss with the reconstruction in the model, held-out text.
        generation: What it costs in generation.
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
    """Activations of two parts of a text, and the later part itself."""

    train: Captured
    held_out: Captured
    later_text: str
    limit: float


class Study(NamedTuple):
    """What came out."""

    autoencoder: SparseAutoencoder
    report: Report


def gather(
    open_session: OpenSession,
    path: Path,
    folder: Path | None = None,
    *,
    layer: int = LAYER,
    thread_count: int = 1,
    limit_tokens: int = 0,
) -> Material:
    """Activations of the text that ships, or of a folder's texts: the last tenth of each is held out.

    Raises:
        RefusedError: No text, or too little.
        EngineError: The engine refused the model, or has no such layer.
    """
    texts = [shipped_text()] if folder is None else texts_of(folder)
    parts = [split_text(t) for t in texts]
    first = capture(
        open_session,
        path,
        [a for a, _ in parts],
        block_name(layer),
        thread_count=thread_count,
        limit_tokens=limit_tokens,
    )
    later = "\n".join(b for _, b in parts)
    second = capture(open_session, path, [later], block_name(layer), thread_count=thread_count)
    return Material(first, second, later, norm_limit(first.values))


def study(
    open_session: OpenSession,
    path: Path,
    folder: Path | None = None,
    *,
    plan: Plan | None = None,
    layer: int = LAYER,
    thread_count: int = 1,
    material: Material | None = None,
    on_step: Callable[[Progress], object] | None = None,
) -> Study:
    """Capture, train, measure.

    Args:
        open_session: Opens the model.
        path: Model file.
        folder: Texts; None for the one that ships.
        plan: How to train; None for TopK-32 with eight features a dimension.
        layer: Block whose residual stream is encoded.
        thread_count: Threads of the engine.
        material: Activations captured before; None captures them now.
        on_step: Told after each step.

    Raises:
        RefusedError, EngineError: See :func:`gather` and :func:`~.splice.losses`.
    """
    material = material or gather(open_session, path, folder, layer=layer, thread_count=thread_count)
    kept = ordinary(material.train.values, material.limit)
    x = material.train.values[kept]
    held = material.held_out.values[ordinary(material.held_out.values, material.limit)]
    if len(held) == 0:
        raise RefusedError("no held-out tokens")
    plan = plan or Plan(
        feature_count=EXPANSION_RATIO * x.shape[1], step_count=STEP_COUNT, batch_tokens=min(BATCH_TOKENS, len(x))
    )
    begin = time.perf_counter()
    sae = train(x, plan, on_step)
    train_s = time.perf_counter() - begin
    mean = x.mean(axis=0, dtype=np.float64).astype(np.float32)
    name = block_name(layer)
    loss = losses(
        open_session, path, material.later_text, name, sae.reconstruct, mean, material.limit, thread_count=thread_count
    )
    generation = overhead(open_session, path, name, sae.reconstruct, material.limit, thread_count=thread_count)
    with closing(open_session(path, scenario_of(thread_count))) as session:
        features = top_features(sae, material.train, material.limit, session.detokenize)
    report = Report(
        model=path.name,
        tensor=name,
        plan=plan,
        train_tokens=len(x),
        massive_count=int(np.count_nonzero(~kept)),
        train_s=train_s,
        train=quality(sae, x[: len(held)]),
        held_out=quality(sae, held),
        loss=loss,
        generation=generation,
        features=tuple(features),
    )
    return Study(sae, report)
