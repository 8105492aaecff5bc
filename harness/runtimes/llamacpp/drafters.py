"""Where drafted tokens come from: a smaller model, the text itself, or a coarser copy of the target."""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.ports import Session
from harness.runtimes.llamacpp.acceptance import draw, probabilities

_LONGEST_TOKENS, _SHORTEST_TOKENS = 5, 2
_EDGES = (0.2, 0.4, 0.6, 0.75, 0.85, 0.92, 0.97)
BUCKET_COUNT = len(_EDGES) + 1
"""Classes of confidence that a drafter sorts its tokens into; what each is worth is learnt, not assumed."""


class Sampling(NamedTuple):
    """How tokens are chosen; temperature 0 is greedy."""

    temperature: float = 0.0
    top_k: int = 0
    seed: int = 0


class Proposal(NamedTuple):
    """Drafted tokens, oldest first.

    Attributes:
        buckets: Confidence class of each, 0 (least) to BUCKET_COUNT - 1.
        distributions: The distribution [vocab_count] each was drawn from; empty when drafted greedily, and None for
            a token that was certain (q = 1 there).
    """

    tokens: list[int]
    buckets: list[int]
    distributions: list[NDArray[np.float64] | None]


GoOn = Callable[[Sequence[int]], bool]
"""Asked with the buckets so far whether one more token is worth drafting."""


class Drafter(ABC):
    """Proposes the next tokens of a history."""

    @abstractmethod
    def propose(self, history: Sequence[int], limit: int, go_on: GoOn) -> Proposal:
        """At most ``limit`` tokens to follow ``history``; may be none."""

    @abstractmethod
    def agreement(self, history: Sequence[int], start: int) -> list[tuple[int, bool]]:
        """(bucket, whether it would have proposed the right token) for each position from ``start`` on."""

    def lag_tokens(self, history: Sequence[int]) -> int:  # noqa: ARG002
        """Tokens of ``history`` that a model would have to be run over before it could draft."""
        return 0

    def forget(self) -> None:  # noqa: B027  what keeps nothing has nothing to drop
        """Drop what is cached of the history."""


class ModelDrafter(Drafter):
    """A language model with the target's vocabulary.

    It is the only user of its session. With the target's temperature acceptance is 1 - total variation distance.
    """

    def __init__(self, session: Session, sampling: Sampling = Sampling()) -> None:  # noqa: B008
        self.session = session
        self.sampling = sampling
        self._random = np.random.default_rng([sampling.seed, 1])
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

    def _catch_up(self, history: Sequence[int], logits: str = "last") -> int:
        """Feed what is missing of ``history``; its first position."""
        common = self._common(history)
        if common < len(self._fed):
            self.session.truncate(common)
            del self._fed[common:]
        missing = history[common:]
        self.session.decode(missing, position=common, logits=logits)
        self._fed.extend(missing)
        return common

    def propose(self, history: Sequence[int], limit: int, go_on: GoOn) -> Proposal:
        """Decode one token after the other until ``go_on`` says stop; a token costs one pass of this model."""
        proposal = Proposal([], [], [])
        if limit <= 0:
            return proposal
        self._catch_up(history)
        while True:
            token, bucket, distribution = self._next()
            proposal.tokens.append(token)
            proposal.buckets.append(bucket)
            if distribution is not None:
                proposal.distributions.append(distribution)
            if len(proposal.tokens) >= limit or not go_on(proposal.buckets):
                return proposal
            self.session.decode((token,), position=len(self._fed))
            self._fed.append(token)

    def _next(self) -> tuple[int, int, NDArray[np.float64] | None]:
        logits = self.session.logits()
        if self.sampling.temperature > 0:
            q = probabilities(logits, self.sampling.temperature, self.sampling.top_k)
            token = draw(q, float(self._random.random()))
            return token, _bucket(float(q[token])), q
        token = int(logits.argmax())
        return token, _bucket(confidence(logits, token)), None

    def agreement(self, history: Sequence[int], start: int) -> list[tuple[int, bool]]:
        """One batched pass over the tokens not seen yet: far cheaper than drafting them one by one."""
        first = self._catch_up(history[:-1], logits="all")
        found: list[tuple[int, bool]] = []
        for row, position in enumerate(range(first + 1, len(history))):
            if position < start:
                continue
            logits = self.session.logits(row)
            token = int(logits.argmax())
            found.append((_bucket(confidence(logits, token)), token == history[position]))
        return found


class LookupDrafter(Drafter):
    """What followed the last time that the same tokens stood in the text (prompt lookup); costs no pass of any model.

    Runs of ``_LONGEST_TOKENS`` are looked for first, and those of fewer than ``_SHORTEST_TOKENS`` are no match. Source:
    Saxena 2023, "Prompt Lookup Decoding".
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
        proposal = Proposal([], [], [])
        start, size = self._find(history)
        if start < 0:
            return proposal
        bucket = min(size - _SHORTEST_TOKENS, BUCKET_COUNT - 1)
        text = list(history)
        while len(proposal.tokens) < limit:
            token = text[start + len(proposal.tokens)]  # may run into what it proposed itself: a period repeats
            text.append(token)
            proposal.tokens.append(token)
            proposal.buckets.append(bucket)
            proposal.distributions.append(None)
            if not go_on(proposal.buckets):
                break
        return proposal

    def agreement(self, history: Sequence[int], start: int) -> list[tuple[int, bool]]:
        """What it would have proposed at each position, with all that stood before."""
        found: list[tuple[int, bool]] = []
        for position in range(max(start, 1), len(history)):
            proposal = self.propose(history[:position], 1, lambda _: False)
            found += [(b, t == history[position]) for t, b in zip(proposal.tokens, proposal.buckets, strict=True)]
        return found


def confidence(logits: NDArray[np.float32], token: int) -> float:
    """softmax(logits)[token], the drafter's own belief in its token."""
    return 1.0 / float(np.exp(logits - logits[token]).sum())


def _bucket(probability: float) -> int:
    return bisect_right(_EDGES, probability)
