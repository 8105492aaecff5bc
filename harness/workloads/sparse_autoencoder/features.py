"""What features fire on: for each of the most telling ones, the tokens around its strongest activations."""

from collections.abc import Callable, Sequence

import numpy as np

from harness.domain.base import Frozen
from harness.workloads._language.activations import Captured, ordinary
from harness.workloads.sparse_autoencoder.model import SparseAutoencoder


class Context(Frozen, frozen=True, kw_only=True):
    """One place where a feature is active: the text before, the token itself, the text after."""

    activation: float
    before: str
    token: str
    after: str


class Feature(Frozen, frozen=True, kw_only=True):
    """One feature.

    Attributes:
        index: Its row in the decoder.
        firing_ratio: Share of tokens that activate it.
        mean_activation: Mean over those tokens.
        same_token_ratio: Share of its strongest contexts that have the most frequent token of them; 1 is a feature for
            one word, a small figure one for something else.
        contexts: The strongest first, at most one from each window.
    """

    index: int
    firing_ratio: float
    mean_activation: float
    same_token_ratio: float
    contexts: tuple[Context, ...]


def top_features(
    autoencoder: SparseAutoencoder,
    captured: Captured,
    limit: float,
    detokenize: Callable[[Sequence[int]], str],
    *,
    feature_count: int = 20,
    context_count: int = 5,
    radius_tokens: int = 8,
    most_firing_ratio: float = 0.02,
    block_tokens: int = 512,
) -> list[Feature]:
    """Features with the highest total activation among those that fire rarely enough to mean something.

    Tokens of a norm above ``limit`` are left out.
    """
    m, n = autoencoder.feature_count, len(captured.tokens)
    rows = np.flatnonzero(ordinary(captured.values, limit))
    parts = []
    for start in range(0, len(rows), block_tokens):
        block = rows[start : start + block_tokens]
        codes = autoencoder.encode_sparse(captured.values[block])
        parts.append((codes.indices, np.repeat(block, np.diff(codes.starts)), codes.values))
    indices, places, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    fired = np.bincount(indices, minlength=m)
    totals = np.bincount(indices, weights=values, minlength=m)
    eligible = (fired >= context_count) & (fired <= most_firing_ratio * max(1, len(rows)))
    order = np.argsort(-np.where(eligible, totals, -1.0), kind="stable")[:feature_count]
    window = np.searchsorted(captured.windows, np.arange(n), side="right") - 1
    ends = np.append(captured.windows[1:], n)
    by_feature = np.argsort(indices, kind="stable")
    starts = np.searchsorted(indices[by_feature], np.arange(m + 1))
    found = []
    for feature in (int(f) for f in order if eligible[f]):
        entries = by_feature[starts[feature] : starts[feature + 1]]
        entries = entries[np.argsort(-values[entries], kind="stable")]
        chosen: dict[int, int] = {}
        for entry in entries:
            chosen.setdefault(int(window[places[entry]]), int(entry))
            if len(chosen) == context_count:
                break
        contexts, tokens = [], []
        for entry in chosen.values():
            place = int(places[entry])
            first, last = captured.windows[window[place]], ends[window[place]]
            before = captured.tokens[max(first, place - radius_tokens) : place]
            after = captured.tokens[place + 1 : min(last, place + 1 + radius_tokens)]
            tokens.append(int(captured.tokens[place]))
            contexts.append(
                Context(
                    activation=float(values[entry]),
                    before=detokenize(before.tolist()),
                    token=detokenize([tokens[-1]]),
                    after=detokenize(after.tolist()),
                )
            )
        found.append(
            Feature(
                index=feature,
                firing_ratio=float(fired[feature]) / max(1, len(rows)),
                mean_activation=float(totals[feature]) / float(fired[feature]),
                same_token_ratio=max(tokens.count(t) for t in tokens) / len(tokens),
                contexts=tuple(contexts),
            )
        )
    return found
