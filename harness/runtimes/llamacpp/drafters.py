"""Where drafted tokens come from: a smaller model, the text itself, or a coarser copy of the target."""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.runtimes.llamacpp.session import LlamaSession

_LONGEST_TOKENS, _SHORTEST_TOKENS = 5, 2
_EDGES = (0.2, 0.4, 0.6, 0.75, 0.85, 0.92, 0.97)
BUCKET_COUNT = len(_EDGES) + 1
"""Classes of confidence that a drafter sorts its tokens into; what each is worth is learnt, not assumed."""
NOTHING = -1
"""In place of a class: nothing is proposed there."""


class Proposal(NamedTuple):
    """Drafted tokens, oldest first, and the confidence class of each, 0 (least) to BUCKET_COUNT - 1."""

    tokens: list[int]
    buckets: list[int]


GoOn = Callable[[Sequence[int]], bool]
"""Asked with the buckets so far whether one more token is worth drafting."""


class Drafter(ABC):
    """Proposes the next tokens of a history."""

    @abstractmethod
    def propose(self, history: Sequence[int], limit: int, go_on: GoOn) -> Proposal:
        """At most ``limit`` tokens to follow ``history``; may be none."""

    @abstractmethod
    def agreement(self, history: Sequence[int], start: int) -> list[tuple[int, bool]]:
        """(bucket, whether it would have proposed the right token) for each position from ``start`` on.

        The bucket is NOTHING where it would have proposed none.
        """

    def lag_tokens(self, history: Sequence[int]) -> int:  # noqa: ARG002
        """Tokens of ``history`` that a model would have to be run over before it could draft."""
        return 0

    def forget(self) -> None:  # noqa: B027  what keeps nothing has nothing to drop
        """Drop what is cached of the history."""


class ModelDrafter(Drafter):
    """A language model with the target's vocabulary, the only user of its session."""

    def __init__(self, session: LlamaSession) -> None:
        self.session = session
        self._fed: list[int] = []

    def forget(self) -> None:
        """Drop the cache."""
        self.session.clear()
        self._fed.clear()

    def lag_tokens(self, history: Sequence[int]) -> int:
        """Tokens of ``history`` that the cache does not hold yet."""
        return len(history) - self._common(history)

    def _common(self, history: Sequence[int]) -> int:
        limit = min(len(self._fed), len(history) - 1)
        # Only the tail can differ: what was verified never changes.
        for index in range(max(0, limit - 64), limit):
            if self._fed[index] != history[index]:
                return index
        return limit

    def _cut(self, history: Sequence[int]) -> None:
        """Drop what the cache holds beyond ``history``."""
        common = self._common(history)
        if common < len(self._fed):
            self.session.truncate(common)
            del self._fed[common:]

    def _feed(self, tokens: Sequence[int], logits: str = "last") -> None:
        self.session.decode(tokens, position=len(self._fed), logits=logits)
        self._fed.extend(tokens)

    def propose(self, history: Sequence[int], limit: int, go_on: GoOn) -> Proposal:
        """Decode one token after the other until ``go_on`` says stop.

        A token costs one pass of this model.
        """
        proposal = Proposal([], [])
        self._cut(history)
        fed: Sequence[int] = history[len(self._fed) :]
        while len(proposal.tokens) < limit:
            self._feed(fed)
            token, bucket = _likeliest(self.session.logits())
            proposal.tokens.append(token)
            proposal.buckets.append(bucket)
            fed = (token,)
            if not go_on(proposal.buckets):
                break
        return proposal

    def agreement(self, history: Sequence[int], start: int) -> list[tuple[int, bool]]:
        """Batched passes over the tokens not seen yet: far cheaper than drafting them one by one.

        Those before ``start`` need no logits, and the others go in pieces whose logits the session has room
        for.
        """
        known = history[:-1]
        self._cut(known)
        first = max(start - 1, len(self._fed))
        self._feed(known[len(self._fed) : first], "none")
        pairs: list[tuple[int, bool]] = []
        for position in range(first, len(known), self.session.output_tokens):
            piece = known[position : position + self.session.output_tokens]
            self._feed(piece, "all")
            for index in range(len(piece)):
                token, bucket = _likeliest(self.session.logits(index))
                pairs.append((bucket, token == history[position + index + 1]))
        return pairs


class LookupDrafter(Drafter):
    """What followed the last time that the same tokens stood in the text (prompt lookup).

    Costs no pass of any model.

    Runs of ``_LONGEST_TOKENS`` are looked for first, and those of fewer than ``_SHORTEST_TOKENS`` are no
    match. Source: Saxena 2023, "Prompt Lookup Decoding".
    """

    def _find(self, history: Sequence[int]) -> tuple[int, int]:
        """(where the continuation starts, tokens that matched); (-1, 0) without a match."""
        text = np.array(history, np.int32).tobytes()  # searched as bytes: a match begins at a whole token
        for size in range(min(_LONGEST_TOKENS, len(history) - 1), _SHORTEST_TOKENS - 1, -1):
            run = text[-4 * size :]
            at = text.rfind(run, 0, -4)
            while at > 0 and at % 4:
                at = text.rfind(run, 0, at + len(run) - 1)
            if at >= 0:
                return at // 4 + size, size
        return -1, 0

    def propose(self, history: Sequence[int], limit: int, go_on: GoOn) -> Proposal:
        """Continue as the text did after the longest match."""
        proposal = Proposal([], [])
        start, size = self._find(history)
        text = list(history)
        while start >= 0 and len(proposal.tokens) < limit:
            text.append(text[start])  # may be one that it proposed itself: a period repeats
            start += 1
            proposal.tokens.append(text[-1])
            proposal.buckets.append(size - _SHORTEST_TOKENS)
            if not go_on(proposal.buckets):
                break
        return proposal

    def agreement(self, history: Sequence[int], start: int) -> list[tuple[int, bool]]:
        """What it would have proposed at each position, with all that stood before."""
        pairs: list[tuple[int, bool]] = []
        for position in range(max(start, 1), len(history)):
            proposal = self.propose(history[:position], 1, lambda _: False)
            bucket = proposal.buckets[0] if proposal.buckets else NOTHING
            pairs.append((bucket, proposal.tokens == [history[position]]))
        return pairs


def _likeliest(logits: NDArray[np.float32]) -> tuple[int, int]:
    """The likeliest token, and the class of the drafter's own belief in it: softmax(logits)[token]."""
    token = int(logits.argmax())
    return token, bisect_right(_EDGES, 1.0 / float(np.exp(logits - logits[token]).sum()))
