"""Which experts stay: those most likely to be wanted by the next token, over all layers together.

An expert's worth is the probability that the next token wants it, by byte. It is estimated from two things:

    p = s + [chosen by the last token] r (1 - s)

s: share of tokens that chose it, each token counted 2 ** (-age / half life) (LRFU: Lee et al. 2001); r: how
often, in that layer, a choice comes again in the next token beyond what its share explains, measured as the
model runs. Reasons:

- Of choices drawn independently from fixed probabilities the best a cache can do is keep the most probable
  ones (Aho, Denning & Ullman 1971); which was used last says nothing beyond that. LRU keeps what came last,
  however rare it is.
- Where tokens do choose again what the last one chose, shares alone drop an expert just read, only to read it
  again: there LRU is the better one. r tells which of the two a model is, layer by layer.
- A prompt wants nearly all experts of every layer, once a pass: a cyclic scan that LRU empties the cache for.
  Counts of tokens outlive it.
- Texts change their subject, and popularity with it: old counts must fade.
- All layers share one budget: a layer whose choices are even gains little from a place that a skewed layer
  needs.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.errors import EngineError
from harness.runtimes.llamacpp.expert_pages import Key

HALF_LIFE_TOKENS: Final = 64.0
"""Costs half a point of hits against 512 where popularity stays, and gains 1 to 3 points where half of the
experts change places every 150 tokens."""
_AGAIN_TOKENS: Final = 16.0  # over which r is averaged


class Wanted(NamedTuple):
    """What one layer's choice means: how many experts are in memory, which to read, and which to give back before."""

    hits: int
    comes: list[Key]
    goes: list[Key]


class ExpertCache:
    """Says what comes and goes; holds no memory itself, ``held_bytes`` is what experts take.

    ``sizes`` are bytes of one expert by layer, ``capacity_bytes`` the most that experts may take at a time;
    after ``half_life_tokens`` a use counts half.
    """

    def __init__(
        self,
        sizes: Mapping[int, int],
        expert_count: int,
        capacity_bytes: int,
        *,
        half_life_tokens: float = HALF_LIFE_TOKENS,
    ) -> None:
        self._layers = sorted(sizes)
        self._row = {layer: row for row, layer in enumerate(self._layers)}
        self._count = expert_count
        self._sizes = np.repeat(np.array([sizes[layer] for layer in self._layers], np.int64), expert_count)
        self._capacity_bytes = capacity_bytes
        self._half_life_tokens = half_life_tokens
        self._total = 0.0  # score of an expert that every token chose
        self._scores: NDArray[np.float64] = np.zeros(self._sizes.size)
        self._last: NDArray[np.bool_] = np.zeros(self._sizes.size, np.bool_)
        self._last_single: NDArray[np.bool_] = np.zeros(len(self._layers), np.bool_)
        self._again: NDArray[np.float64] = np.zeros(len(self._layers))
        self._resident: NDArray[np.bool_] = np.zeros(self._sizes.size, np.bool_)
        self._last_row = -1
        self.held_bytes = 0

    def want(self, layer: int, counts: NDArray[np.int64], token_count: int) -> Wanted:
        """The router of a layer has chosen; EngineError where the wanted experts do not fit together.

        A lower layer than before, or the same, begins a new pass over ``token_count`` tokens; ``counts``
        [expert_count] says how many of them chose each expert.
        """
        row = self._row[layer]
        if row <= self._last_row or not self._total:
            self._pass(token_count)
        self._last_row = row
        wanted = row * self._count + np.flatnonzero(counts)
        self._score(row, wanted, counts, token_count)
        missing = wanted[~self._resident[wanted]]
        excess = self.held_bytes + int(self._sizes[missing].sum()) - self._capacity_bytes
        if excess > 0:
            victims = self._victims(wanted, excess)
        else:
            victims = missing[:0]
        self._resident[victims] = False
        self._resident[missing] = True
        self.held_bytes += int(self._sizes[missing].sum()) - int(self._sizes[victims].sum())
        return Wanted(len(wanted) - len(missing), self._keys(missing), self._keys(victims))

    def _pass(self, token_count: int) -> None:
        fade = 0.5 ** (token_count / self._half_life_tokens)
        self._scores *= fade
        self._total = self._total * fade + token_count

    def _score(
        self, row: int, wanted: NDArray[np.int64], counts: NDArray[np.int64], token_count: int
    ) -> None:
        here = slice(row * self._count, (row + 1) * self._count)
        last = self._last[here]
        chosen = counts > 0
        if token_count == 1 and self._last_single[row]:
            share = self._scores[here][last] / self._total
            left = float(
                (1 - share).sum()
            )  # choices of the last token that would not have come again by popularity
            if left > 0:
                again = float((chosen[last] - share).sum()) / left
                self._again[row] += (min(max(again, 0.0), 1.0) - self._again[row]) / _AGAIN_TOKENS
        self._last[here] = chosen
        self._last_single[row] = token_count == 1
        self._scores[wanted] += counts[chosen]

    def _worth(self) -> NDArray[np.float64]:
        """What is lost for each byte of an expert that goes."""
        share = self._scores / (self._total or 1.0)
        again = np.repeat(self._again, self._count) * self._last
        worth: NDArray[np.float64] = (share + again * (1 - share)) / self._sizes
        return worth

    def _victims(self, wanted: NDArray[np.int64], excess_bytes: int) -> NDArray[np.int64]:
        """Those of least worth that free so many bytes, none of them wanted now."""
        candidates = self._resident.copy()
        candidates[wanted] = False
        indices = np.flatnonzero(candidates)
        order = indices[np.argsort(self._worth()[indices], kind="stable")]
        room = np.cumsum(self._sizes[order])
        needed = int(np.searchsorted(room, excess_bytes)) + 1
        if needed > len(order):
            raise EngineError("the experts that one pass wants of a layer do not fit the budget together")
        victims: NDArray[np.int64] = order[:needed]
        return victims

    def _keys(self, indices: NDArray[np.int64]) -> list[Key]:
        return [(self._layers[i // self._count], int(i % self._count)) for i in indices.tolist()]
