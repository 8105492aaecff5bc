"""Speculative decoding on two sessions: draft some tokens, verify them in one pass of the target, roll back the rest.

Greedy output is the target's own, except where its argmax over a batch differs from that over a single token (kernels
sum in another order): those places are found and explained by :func:`explain_difference`. Sampled output has exactly
the target's distribution (see :mod:`harness.runtimes.llamacpp.acceptance`).
"""

import time
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.domain.drafting import Decoding
from harness.errors import RefusedError
from harness.runtimes.llamacpp.acceptance import accept_or_resample, draw, probabilities
from harness.runtimes.llamacpp.draft_policy import FixedPolicy
from harness.runtimes.llamacpp.drafters import Drafter, Proposal, Sampling
from harness.runtimes.llamacpp.session import LlamaSession

_PADDING_TOKENS = 128  # rows that some makers add to the table so that its size is round
_CYCLE_ROOM_TOKENS = 64
_PASS_COUNT, _DEPTH_TOKENS = 4, 96  # of each size that is timed, and behind how many tokens


class Difference(NamedTuple):
    """Where speculative and plain output part, and why.

    Margins are the logit of the plain token minus that of the other one, computed in a batch of one and in one of
    ``batch_tokens``; ``noise`` is the greatest difference of any logit between the two. It is explained when the argmax
    over the batch is the other token, or the margin is within the noise.
    """

    at_tokens: int
    plain_token: int
    other_token: int
    margin_single: float
    margin_batch: float
    noise: float
    explained: bool


def check_same_vocabulary(target: LlamaSession, draft: LlamaSession) -> None:
    """Drafted token ids must mean the same to the target; RefusedError where they do not."""
    lib = target.lib
    kind_a, kind_b = lib.llama_vocab_type(target.vocab), lib.llama_vocab_type(draft.vocab)
    if kind_a != kind_b or abs(target.vocab_count - draft.vocab_count) > _PADDING_TOKENS:
        raise RefusedError(
            f"{draft.path.name} cannot draft for {target.path.name}: other vocabulary "
            f"({draft.vocab_count} tokens of kind {kind_b}, the target has {target.vocab_count} of kind {kind_a})"
        )
    for token in range(min(target.vocab_count, draft.vocab_count)):
        a, b = lib.llama_vocab_get_text(target.vocab, token), lib.llama_vocab_get_text(draft.vocab, token)
        if a != b:
            raise RefusedError(
                f"{draft.path.name} cannot draft for {target.path.name}: token {token} is {b!r} there and {a!r} here"
            )


def measure_pass_s(session: LlamaSession, sizes: Sequence[int]) -> dict[int, float]:
    """Seconds of one pass over k tokens with all their logits, for each k in ``sizes``; interleaved.

    The lower quartile of the repetitions: what disturbs a pass only ever makes it slower. The cache is
    cleared before and after.
    """
    random = np.random.default_rng(0)

    def some(count: int) -> list[int]:
        return [int(t) for t in random.integers(0, session.vocab_count, count)]

    session.clear()
    session.decode(some(_DEPTH_TOKENS), position=0)
    times: dict[int, list[float]] = {k: [] for k in sizes}
    for repetition in range(1 + _PASS_COUNT):
        for k in sizes:
            tokens = some(k)
            started_s = time.perf_counter()
            session.decode(tokens, position=_DEPTH_TOKENS, logits="all")
            duration_s = time.perf_counter() - started_s
            if repetition:  # the first round builds the graphs
                times[k].append(duration_s)
            session.truncate(_DEPTH_TOKENS)
    session.clear()
    return {k: sorted(v)[(len(v) - 1) // 4] for k, v in times.items()}


class Speculator:
    """The decoding loop; the only user of the target's sequence 0.

    The drafter must have been given the same temperature.
    """

    def __init__(
        self,
        target: LlamaSession,
        drafter: Drafter,
        policy: FixedPolicy,
        sampling: Sampling = Sampling(),  # noqa: B008  an immutable tuple
    ) -> None:
        self.target = target
        self.drafter = drafter
        self.policy = policy
        self.sampling = sampling
        self._random = np.random.default_rng([sampling.seed, 0])

    def generate(self, prompt: Sequence[int], new_tokens: int) -> Decoding:
        """Generate ``new_tokens`` tokens after ``prompt``, whatever they mean: the end of a text does not end it.

        RefusedError where the context is too short.
        """
        target, policy, drafter = self.target, self.policy, self.drafter
        if len(prompt) + new_tokens > target.context_tokens:
            raise RefusedError(f"{len(prompt)} + {new_tokens} tokens do not fit a context of {target.context_tokens}")
        now_s = time.perf_counter
        begun_s = now_s()
        target.clear()
        drafter.forget()
        target.decode(prompt, position=0)
        started_s = now_s()
        history = [*prompt, self._choose(-1)]
        end = len(prompt) + new_tokens
        cycles: list[Cycle] = []
        widest = 1
        while len(history) < end:
            probe_s = probe(drafter, policy, history, len(prompt) + 1)
            t0_s = now_s()
            room = min(policy.limit(), end - len(history) - 1, _CYCLE_ROOM_TOKENS)
            proposal = drafter.propose(history, room, policy.go_on) if room > 0 else Proposal([], [], [])
            t1_s = now_s()
            size = 1 + len(proposal.tokens)
            filling = self._filling(size, len(history) - 1)
            target.decode([history[-1], *proposal.tokens, *filling], position=len(history) - 1, logits="all")
            accepted, token = self._verify(proposal)
            t2_s = now_s()
            history += [*proposal.tokens[:accepted], token]
            if filling or accepted < len(proposal.tokens):
                target.truncate(len(history) - 1)
            widest = max(widest, size + len(filling))
            cycles.append(Cycle(size - 1, accepted, t1_s - t0_s + probe_s, t2_s - t1_s))
            policy.saw_cycle(proposal.buckets, accepted, t1_s - t0_s, t2_s - t1_s)
        return decoding_of(history[len(prompt) : end], now_s() - started_s, started_s - begun_s, cycles, widest)

    def _filling(self, size: int, position: int) -> list[int]:
        """Tokens that fill a pass up to a size that takes less time; what they leave in the cache is taken back."""
        wanted = self.policy.pass_tokens(size)
        room = min(self.target.batch_tokens, self.target.context_tokens - position)
        return [0] * (wanted - size) if size < wanted <= room else []

    def _choose(self, index: int) -> int:
        if self.sampling.temperature > 0:
            p = probabilities(self.target.logits(index), self.sampling.temperature, self.sampling.top_k)
            return draw(p, float(self._random.random()))
        return self.target.greedy(index)

    def _verify(self, proposal: Proposal) -> tuple[int, int]:
        """(drafted tokens accepted, the token after them)."""
        sampled = self.sampling.temperature > 0
        for index, token in enumerate(proposal.tokens):
            if sampled:
                p = probabilities(self.target.logits(index), self.sampling.temperature, self.sampling.top_k)
                q = _aligned(proposal.distributions[index], token, p.size)
                chosen, accepted = accept_or_resample(p, q, token, float(self._random.random()))
            else:
                chosen = self.target.greedy(index)
                accepted = chosen == token
            if not accepted:
                return index, chosen
        return len(proposal.tokens), self._choose(len(proposal.tokens))


def probe(drafter: Drafter, policy: FixedPolicy, history: Sequence[int], start: int) -> float:
    """Look whether the draft would have agreed with ``history`` from ``start`` on, if the policy asks; its seconds."""
    lag_tokens = drafter.lag_tokens(history)
    if not policy.wants_probe(lag_tokens):
        return 0.0
    started_s = time.perf_counter()
    found = drafter.agreement(history, max(start, len(history) - 64))
    duration_s = time.perf_counter() - started_s
    policy.saw_agreement(found, lag_tokens, duration_s)
    return duration_s


def _aligned(q: NDArray[np.float64] | None, token: int, size: int) -> NDArray[np.float64]:
    """The draft's distribution over the target's ``size`` tokens; a point mass where the drafter was certain."""
    if q is not None and q.size == size:
        return q
    whole = np.zeros(size)
    if q is None:
        whole[token] = 1.0
    else:
        whole[: min(size, q.size)] = q[:size]
    return whole


class Cycle(NamedTuple):
    """One pass of the target: tokens drafted and accepted, and what both cost."""

    drafted: int
    accepted: int
    draft_s: float
    verify_s: float


def decoding_of(
    tokens: Sequence[int], duration_s: float, prefill_s: float, cycles: Sequence[Cycle], widest_tokens: int
) -> Decoding:
    """An answer of such cycles."""
    lengths = tuple(c.drafted for c in cycles)
    positions = range(max(lengths, default=0))
    return Decoding(
        tokens=tuple(tokens),
        duration_s=duration_s,
        prefill_s=prefill_s,
        cycle_count=len(cycles),
        plain_count=lengths.count(0),
        drafted_count=sum(lengths),
        accepted_count=sum(c.accepted for c in cycles),
        tried_by_position=tuple(sum(min(c.accepted + 1, c.drafted) > i for c in cycles) for i in positions),
        accepted_by_position=tuple(sum(c.accepted > i for c in cycles) for i in positions),
        draft_s=sum(c.draft_s for c in cycles),
        verify_s=sum(c.verify_s for c in cycles),
        lengths=lengths,
        widest_tokens=widest_tokens,
    )


def plain(target: LlamaSession, prompt: Sequence[int], new_tokens: int) -> Decoding:
    """The same without any draft: what speculation is compared with, in the leanest loop there is."""
    now_s = time.perf_counter
    begun_s = now_s()
    target.clear()
    target.decode(prompt, position=0)
    started_s = now_s()
    token = target.greedy()
    tokens = [token]
    position = len(prompt)
    for _ in range(new_tokens - 1):
        target.decode((token,), position=position)
        token = target.greedy()
        tokens.append(token)
        position += 1
    duration_s = now_s() - started_s
    return Decoding(
        tokens=tuple(tokens),
        duration_s=duration_s,
        prefill_s=started_s - begun_s,
        cycle_count=new_tokens - 1,
        plain_count=new_tokens - 1,
        verify_s=duration_s,
    )


def explain_difference(
    target: LlamaSession, prompt: Sequence[int], one: Sequence[int], other: Sequence[int], batch_tokens: int
) -> Difference | None:
    """Find the first token where two greedy outputs differ and compute its logits both ways; None when equal.

    ``one`` is plain decoding's, and the other one came from passes over ``batch_tokens`` tokens. The cache is cleared.
    """
    index = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    if index is None:
        return None
    history = [*prompt, *one[:index]]
    last = len(history) - 1
    target.clear()
    # As plain decoding filled the cache: the prompt in one pass, then one token after the other.
    target.decode(history[: len(prompt)], position=0)
    for position in range(len(prompt), last + 1):
        target.decode((history[position],), position=position)
    single = target.logits().copy()
    first = max(len(history) - batch_tokens, 0)
    noise, batch = 0.0, single
    for start in range(first, last + 1):  # where in the batch the token stood is not known: try each place
        size = min(batch_tokens, len(history) - start)
        target.truncate(start)
        filler = [history[-1]] * (batch_tokens - size)
        target.decode([*history[start : start + size], *filler], position=start, logits="all")
        row = target.logits(last - start).copy()
        noise = max(noise, float(np.abs(row - single).max()))
        if int(row.argmax()) == other[index]:
            batch = row
        target.truncate(start)
        target.decode(history[start:], position=start)
    a, b = one[index], other[index]
    margin_single = float(single[a] - single[b])
    margin_batch = float(batch[a] - batch[b])
    return Difference(index, a, b, margin_single, margin_batch, noise, margin_batch <= 0 or margin_single <= 2 * noise)


def total(parts: Iterable[Decoding]) -> Decoding:
    """Sums over several answers."""
    parts = list(parts)
    counts = ("cycle_count", "plain_count", "drafted_count", "accepted_count", "answer_count")
    summed = ("duration_s", "prefill_s", "draft_s", "verify_s", *counts)

    def by_position(name: str) -> tuple[int, ...]:
        return tuple(map(sum, zip_longest(*(getattr(p, name) for p in parts), fillvalue=0)))

    return Decoding(
        tokens=tuple(t for p in parts for t in p.tokens),
        tried_by_position=by_position("tried_by_position"),
        accepted_by_position=by_position("accepted_by_position"),
        lengths=tuple(n for p in parts for n in p.lengths),
        widest_tokens=max((p.widest_tokens for p in parts), default=1),
        **{name: sum(getattr(p, name) for p in parts) for name in summed},
    )
