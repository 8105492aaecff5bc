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
) -> list[Feature]:
    """Features with the highest total activation among those that fire rarely enough to mean something.

    Tokens of a norm above ``limit`` are left out.
    """
    m, n = autoencoder.feature_count, len(captured.tokens)
    rows = np.flatnonzero(ordinary(captured.values, limit))
    codes = autoencoder.encode_blocks(captured.values[rows])
    active = codes.values > 0
    places, indices, values = rows[active.nonzero()[0]], codes.indices[active], codes.values[active]
    fired = np.bincount(indices, minlength=m)
    totals = np.bincount(indices, weights=values, minlength=m)
    eligible = (fired >= context_count) & (fired <= most_firing_ratio * max(1, len(rows)))
    order = np.argsort(-np.where(eligible, totals, -1.0), kind="stable")[:feature_count]
    window = np.searchsorted(captured.windows, np.arange(n), side="right") - 1
    ends = np.append(captured.windows[1:], n)
    found = []
    for feature in (int(f) for f in order if eligible[f]):
        entries = np.flatnonzero(indices == feature)
        entries = entries[np.argsort(-values[entries], kind="stable")]
        _, firsts = np.unique(window[places[entries]], return_index=True)
        contexts, tokens = [], []
        for entry in entries[np.sort(firsts)[:context_count]]:
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
