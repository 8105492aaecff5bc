"""Probes of every property on one layer of a real model, held-out text, and on the token alone."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np

from harness.domain.base import Frozen
from harness.errors import RefusedError
from harness.ports import Session
from harness.workloads._language.activations import (
    Captured,
    block_name,
    capture,
    norm_limit,
    ordinary,
    scenario_of,
)
from harness.workloads._language.texts import shipped_text, split_text, texts_of
from harness.workloads.probe.linear import ProbeReport, Rows, report
from harness.workloads.probe.properties import PROPERTIES, token_labels


class ProbeStudy(Frozen, frozen=True, kw_only=True):
    """Reports on one layer; ``skipped`` names properties that the text does not show both ways."""

    model: str
    layer: int
    reports: tuple[ProbeReport, ...]
    skipped: tuple[str, ...]


def rows_of(captured: Captured, detokenize: Callable[[list[int]], str], name: str, limit: float) -> Rows:
    """Activations and labels of the ordinary tokens."""
    ends = np.append(captured.windows[1:], len(captured.tokens))
    labels = np.zeros(len(captured.tokens), np.bool_)
    owner = np.zeros(len(captured.tokens), np.int64)
    for index, (start, end) in enumerate(zip(captured.windows, ends, strict=True)):
        pieces = [detokenize([int(t)]) for t in captured.tokens[start:end]]
        labels[start:end] = token_labels(pieces, PROPERTIES[name])
        owner[start:end] = index
    kept = ordinary(captured.values, limit)
    return Rows(x=captured.values[kept], tokens=captured.tokens[kept], labels=labels[kept], windows=owner[kept])


def probe_study(
    open_session: Callable[..., Session],
    path: Path,
    folder: Path | None = None,
    *,
    layer: int = 15,
    thread_count: int = 1,
    limit_tokens: int = 12_000,
    material: tuple[Captured, Captured] | None = None,
) -> ProbeStudy:
    """Train on the beginning of a text, test on its last fifth.

    Args:
        open_session: Opens the model.
        path: Model file.
        folder: Texts; None for the one that ships.
        layer: Block whose residual stream is probed.
        thread_count: Threads of the engine.
        limit_tokens: Most tokens to train on.
        material: Activations of both parts captured before.

    Raises:
        RefusedError: The text is too short, or shows no property both ways.
        EngineError: The engine refused the model, or has no such layer.
    """
    if material is None:
        parts = [split_text(t, 0.2) for t in ([shipped_text()] if folder is None else texts_of(folder))]
        name = block_name(layer)
        first = capture(
            open_session, path, [a for a, _ in parts], name, thread_count=thread_count, limit_tokens=limit_tokens
        )
        later = capture(open_session, path, ["\n".join(b for _, b in parts)], name, thread_count=thread_count)
    else:
        first, later = material
    limit = norm_limit(first.values)
    reports, skipped = [], []
    with closing(open_session(path, scenario_of(thread_count))) as session:
        for name in PROPERTIES:
            train = rows_of(first, session.detokenize, name, limit)
            held_out = rows_of(later, session.detokenize, name, limit)
            try:
                reports.append(report(name, train, held_out))
            except RefusedError:
                skipped.append(name)
    if not reports:
        raise RefusedError("the text shows no property both ways")
    return ProbeStudy(model=path.name, layer=layer, reports=tuple(reports), skipped=tuple(skipped))
