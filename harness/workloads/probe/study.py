"""Probes of every property on the layers of a real model, held-out text, and on the token alone.

A property of a token that its text decides is computed and never guessed: at the last character of the token, from the
text of its window up to there; ``word_goes_on`` also looks at the character after it.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

from harness.catalog.gguf import read_gguf
from harness.domain.base import Frozen
from harness.errors import RefusedError
from harness.ports import Session
from harness.workloads._language.activations import (
    Captured,
    OpenSession,
    block_name,
    capture,
    norm_limit,
    ordinary,
    scenario_of,
)
from harness.workloads._language.sampling import logits_after
from harness.workloads._language.texts import shipped_text, split_text, texts_of
from harness.workloads.probe.linear import Labels, ProbeReport, Rows, report


def in_parentheses(text: str) -> Labels:
    """Whether more round brackets were opened than closed, up to and with each character; a blank line closes all."""
    found = np.zeros(len(text), np.bool_)
    depth, blank = 0, False
    for i, c in enumerate(text):
        if c == "(":
            depth += 1
        elif c == ")":
            depth = max(0, depth - 1)
        if c == "\n":
            depth, blank = (0 if blank else depth), True
        elif not c.isspace():
            blank = False
        found[i] = depth > 0
    return found


def in_quotes(text: str) -> Labels:
    """Whether a double quote is open after each character; the end of a line closes it."""
    states = accumulate(text, lambda is_open, c: c != "\n" and is_open != (c == '"'), initial=False)
    return np.array([*states][1:], np.bool_)


def in_indented_line(text: str) -> Labels:
    """Whether the character's line begins with four blanks or more: code and grammar, not prose, in a reference text.

    The newline belongs to the line that it ends.
    """
    return np.array([line.startswith("    ") for line in text.splitlines(keepends=True) for _ in line], np.bool_)


def word_goes_on(text: str) -> Labels:
    """Whether a letter follows a letter: the token ends inside a word; a token's own text does not decide it."""
    return np.array([a.isalpha() and b.isalpha() for a, b in pairwise(text + " ")], np.bool_)


PROPERTIES: Final[dict[str, Callable[[str], Labels]]] = {
    "in parentheses": in_parentheses,
    "in quotes": in_quotes,
    "in indented line": in_indented_line,
    "word goes on": word_goes_on,
}


def token_labels(pieces: Sequence[str], of_text: Callable[[str], Labels]) -> Labels:
    """Label of each token: the property at its last character; a token of no text has the one before it."""
    characters = of_text("".join(pieces))
    ends = np.cumsum([len(p) for p in pieces]) - 1
    labels: Labels = characters[np.maximum(ends, 0)] if len(characters) else np.zeros(len(pieces), np.bool_)
    return labels


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
    from scipy.special import entr, softmax

    found: list[float] = [
        float(entr(softmax(logits.astype(np.float64))).sum())
        for start, end in _windows(captured)
        for logits in logits_after(session, captured.tokens[start:end].tolist())
    ]
    return np.array(found) > np.median(found)


def _windows(captured: Captured) -> list[tuple[int, int]]:
    ends = np.append(captured.windows[1:], len(captured.tokens))
    return list(zip(captured.windows.tolist(), ends.tolist(), strict=True))


def rows_of(captured: Captured, labels: Labels, limit: float) -> Rows:
    """Activations and labels of the ordinary tokens."""
    owner = np.repeat(np.arange(len(captured.windows)), [end - start for start, end in _windows(captured)])
    kept = ordinary(captured.values, limit)
    return Rows(x=captured.values[kept], tokens=captured.tokens[kept], labels=labels[kept], windows=owner[kept])


def sweep(
    open_session: OpenSession,
    path: Path,
    folder: Path | None = None,
    *,
    layers: Sequence[int] = (),
    thread_count: int = 1,
    limit_tokens: int = 6000,
) -> list[ProbeStudy]:
    """Every property, and whether the model is sure of its next token, on each of the layers.

    Without ``layers`` on five from the first to the last. Probes are trained on the beginning of the texts and tested
    on their last fifth. RefusedError where the text is too short, or shows no property both ways, EngineError where the
    engine refused the model, or has no such layer.
    """
    last = read_gguf(path).weights().shape.layer_count - 1
    texts = [split_text(t, 0.2) for t in ([shipped_text()] if folder is None else texts_of(folder))]
    parts = [a for a, _ in texts], ["\n".join(b for _, b in texts)]
    labels: dict[str, list[Labels]] = {}
    found = []
    for layer in layers or sorted({round(share * last) for share in (0, 0.25, 0.5, 0.75, 1)}):
        kept = "all" if layer == last else "none"
        options: dict[str, Any] = {"thread_count": thread_count, "limit_tokens": limit_tokens, "logits": kept}
        captured = [capture(open_session, path, part, block_name(layer), **options) for part in parts]
        if not labels:  # tokens are the same for every layer
            with closing(open_session(path, scenario_of(thread_count))) as session:
                labels = {n: [text_labels(part, session.detokenize, n) for part in captured] for n in PROPERTIES}
                labels["next token uncertain"] = [uncertain(session, part) for part in captured]
        limit = norm_limit(captured[0].values)
        reports, skipped = [], []
        for name, of_parts in labels.items():
            train, held_out = (rows_of(part, own, limit) for part, own in zip(captured, of_parts, strict=True))
            try:
                reports.append(report(name, train, held_out))
            except RefusedError:
                skipped.append(name)
        if not reports:
            raise RefusedError("the text shows no property both ways")
        found.append(ProbeStudy(model=path.name, layer=layer, reports=tuple(reports), skipped=tuple(skipped)))
    return found
