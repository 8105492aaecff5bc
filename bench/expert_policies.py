"""Hits of ways to choose which experts stay, on drawn choices: ``python -m bench.expert_policies``.

Choices of 8 of 64 experts in 4 layers follow a Zipf law; ``again`` is the probability that a choice of the last token
is kept by the next one, and every ``change`` tokens half of the experts change places. All by drawing: real routers lie
somewhere between, and which of these a model is like is not known before it runs.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import click
import numpy as np
from numpy.typing import NDArray

from harness.predict.moe import hit_ratio, popularity
from harness.runtimes.llamacpp.expert_cache import HALF_LIFE_TOKENS, CachePolicy, ExpertCache

LAYERS: Final = 4
EXPERTS: Final = 64
USED: Final = 8
_WARM_TOKENS: Final = 50

Choices = list[list[NDArray[np.int64]]]
"""For each token and layer: tokens that chose each expert (0 or 1)."""


def draw(skew: float, again: float, change: int, tokens: int, seed: int) -> Choices:
    """Draw the choices of so many tokens."""
    random = np.random.default_rng(seed)
    weights = np.log(popularity(EXPERTS, skew))
    places = [random.permutation(EXPERTS) for _ in range(LAYERS)]
    last: list[list[int]] = [[] for _ in range(LAYERS)]
    found: Choices = []
    for token in range(tokens):
        for layer in range(LAYERS):
            if change and token and token % change == 0:
                moved = random.choice(EXPERTS, EXPERTS // 2, replace=False)
                places[layer][moved] = random.permutation(places[layer][moved])
            kept = [e for e in last[layer] if random.random() < again]
            # The largest of log-weights with Gumbel noise are a draw without putting back.
            order = places[layer][np.argsort(-(weights + random.gumbel(size=EXPERTS)))]
            last[layer] = kept + [int(e) for e in order if e not in kept][: USED - len(kept)]
        found.append([np.bincount(chosen, minlength=EXPERTS) for chosen in last])
    return found


class Hits(NamedTuple):
    """What a cache gave.

    Attributes:
        hit_ratio: Share of wanted experts that it held.
        ahead_ratio: Share of the two likeliest experts that it did not hold, layer by layer, that were wanted: what
            reading ahead of the router would have read for a reason.
    """

    hit_ratio: float
    ahead_ratio: float


def _likeliest_absent(cache: ExpertCache, layer: int, count: int) -> NDArray[np.int64]:
    """The likeliest experts of a layer that are not in memory."""
    here = slice(layer * EXPERTS, (layer + 1) * EXPERTS)
    absent = np.flatnonzero(~cache._resident[here])
    return absent[np.argsort(-cache._worth()[here][absent], kind="stable")][:count]


def hits(choices: Choices, share: float, policy: CachePolicy, half_life_tokens: float = HALF_LIFE_TOKENS) -> Hits:
    """Run a cache that holds ``share`` of all experts over the choices."""
    cache = ExpertCache(
        dict.fromkeys(range(LAYERS), 1),
        EXPERTS,
        int(share * EXPERTS * LAYERS),
        policy=policy,
        half_life_tokens=half_life_tokens,
    )
    found, ahead = [], []
    for token, row in enumerate(choices):
        for layer, counts in enumerate(row):
            absent = _likeliest_absent(cache, layer, 2)
            held = cache.want(layer, counts, 1).hits
            if token >= _WARM_TOKENS:
                found.append(held / USED)
                ahead.append(counts[absent].mean() if absent.size else 0.0)
    return Hits(float(np.mean(found)), float(np.mean(ahead)))


def _rows(tokens: int, seed: int) -> Iterator[str]:
    yield "| skew | again | change | room | law lru | lru | law lfu | lfu | likely | likely 16 | likely 512 | ahead |"
    yield "|--:" * 12 + "|"
    for skew, again, change in ((0.9, 0.0, 0), (0.9, 0.0, 150), (0.9, 0.3, 0), (0.9, 0.3, 150), (0.5, 0.3, 150)):
        choices = draw(skew, again, change, tokens, seed)
        for share in (0.3, 0.5):
            lru_law, lfu_law = (
                hit_ratio(EXPERTS, share * EXPERTS, skew=skew, policy=policy, used_count=USED)
                for policy in ("lru", "lfu")
            )
            likely = hits(choices, share, "likely")
            cells = [
                lru_law,
                hits(choices, share, "lru").hit_ratio,
                lfu_law,
                hits(choices, share, "lfu").hit_ratio,
                likely.hit_ratio,
                hits(choices, share, "likely", 16.0).hit_ratio,
                hits(choices, share, "likely", 512.0).hit_ratio,
                likely.ahead_ratio,
            ]
            yield f"| {skew} | {again} | {change or '-'} | {share} | " + " | ".join(f"{c:.3f}" for c in cells) + " |"


@click.command()
@click.option("--tokens", default=700, show_default=True, type=click.IntRange(100))
@click.option("--seed", default=2, show_default=True)
def main(tokens: int, seed: int) -> None:
    """Print the table of docs/streaming-experts.md."""
    for row in _rows(tokens, seed):
        click.echo(row)


if __name__ == "__main__":
    main()
