"""Probes of every property on the layers of a real model, held-out text, and on the token alone."""

from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import numpy as np

from harness.catalog.gguf import read_gguf
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
from harness.workloads.probe.linear import Labels, ProbeReport, Rows, report
from harness.workloads.probe.properties import PROPERTIES, token_labels


class ProbeStudy(Frozen, frozen=True, kw_only=True):
    """Reports on one layer; ``skipped`` names properties that the text does not show both ways."""

    model: str
    layer: int
    reports: tuple[ProbeReport, ...]
    skipped: tuple[str, ...]


def text_labels(captured: Captured, detokenize: Callable[[list[int]], str], name: str) -> Labels:
    """A property of the text for every token."""
    found = [
        token_labels([detokenize([int(t)]) for t in captured.tokens[start:end]], PROPERTIES[name])
        for start, end in _windows(captured)
    ]
    return np.concatenate(found)


def uncertain(session: Session, captured: Captured) -> Labels:
    """Whether the model's next token, after each one, has more than the median entropy: a property of no text."""
    found = []
    for start, end in _windows(captured):
        session.clear()
        session.decode([int(t) for t in captured.tokens[start:end]], position=0, logits="all")
        for index in range(end - start):
            logits = session.logits(index)
            p = np.exp(logits - logits.max(), dtype=np.float64)
            p /= p.sum()
            found.append(-float(p @ np.log(np.maximum(p, 1e-300))))
    return np.array(found) > np.median(found)


def _windows(captured: Captured) -> list[tuple[int, int]]:
    ends = np.append(captured.windows[1:], len(captured.tokens))
    return list(zip(captured.windows.tolist(), ends.tolist(), strict=True))


def rows_of(captured: Captured, labels: Labels, limit: float) -> Rows:
    """Activations and labels of the ordinary tokens."""
    owner = np.repeat(np.arange(len(captured.windows)), [end - start for start, end in _windows(captured)])
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
    further: Mapping[str, tuple[Labels, Labels]] | None = None,
) -> ProbeStudy:
    """Train on the beginning of a text, test on its last fifth.

    ``material`` are activations of both parts captured before, ``further`` labels of more properties, for every token
    of both parts.

    Raises:
        RefusedError: The text is too short, or shows no property both ways.
        EngineError: The engine refused the model, or has no such layer.
    """
    if material is None:
        material = captured_parts(open_session, path, folder, layer, thread_count, limit_tokens)
    first, later = material
    limit = norm_limit(first.values)
    reports, skipped = [], []
    with closing(open_session(path, scenario_of(thread_count))) as session:
        labels = {n: tuple(text_labels(part, session.detokenize, n) for part in material) for n in PROPERTIES}
        for name, (train, held_out) in {**labels, **(further or {})}.items():
            try:
                reports.append(report(name, rows_of(first, train, limit), rows_of(later, held_out, limit)))
            except RefusedError:
                skipped.append(name)
    if not reports:
        raise RefusedError("the text shows no property both ways")
    return ProbeStudy(model=path.name, layer=layer, reports=tuple(reports), skipped=tuple(skipped))


def captured_parts(
    open_session: Callable[..., Session],
    path: Path,
    folder: Path | None,
    layer: int,
    thread_count: int,
    limit_tokens: int,
) -> tuple[Captured, Captured]:
    """Activations of the beginning of the texts, and of their last fifth."""
    parts = [split_text(t, 0.2) for t in ([shipped_text()] if folder is None else texts_of(folder))]
    begin, end = [a for a, _ in parts], ["\n".join(b for _, b in parts)]
    name = block_name(layer)
    options = {"thread_count": thread_count, "limit_tokens": limit_tokens}
    return capture(open_session, path, begin, name, **options), capture(open_session, path, end, name, **options)


def sweep(
    open_session: Callable[..., Session],
    path: Path,
    folder: Path | None = None,
    *,
    thread_count: int = 1,
    limit_tokens: int = 6000,
) -> list[ProbeStudy]:
    """Every property on five layers from the first to the last, and whether the model is sure of its next token.

    Raises:
        RefusedError: The text is too short, or shows no property both ways.
        EngineError: The engine refused the model.
    """
    count = read_gguf(path).weights().shape.layer_count
    layers = sorted({round(share * (count - 1)) for share in (0, 0.25, 0.5, 0.75, 1)})
    further: dict[str, tuple[Labels, Labels]] = {}
    found = []
    for layer in layers:
        material = captured_parts(open_session, path, folder, layer, thread_count, limit_tokens)
        if not further:
            with closing(open_session(path, scenario_of(thread_count))) as session:
                first, later = (uncertain(session, part) for part in material)
            further = {"next token uncertain": (first, later)}
        found.append(
            probe_study(open_session, path, layer=layer, thread_count=thread_count, material=material, further=further)
        )
    return found
