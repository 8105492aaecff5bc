"""Speculative decoding on two sessions: draft some tokens, verify them in one pass of the target, roll back the rest.

Greedy output is the target's own, except where its argmax over a batch differs from that over a single token
(kernels sum in another order): those places are found and explained by :func:`explain_difference`.
"""

import time
from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest
from typing import Any, NamedTuple

import numpy as np

from harness.domain.drafting import PADDING_TOKENS, Decoding
from harness.errors import RefusedError
from harness.runtimes.llamacpp.draft_policy import DraftPolicy
from harness.runtimes.llamacpp.drafters import Drafter, Proposal
from harness.runtimes.llamacpp.session import LlamaSession

_CYCLE_ROOM_TOKENS = 64
_LOOK_TOKENS = 64  # of the text that a draft is asked about, the last ones


class Difference(NamedTuple):
    """Where speculative and plain output part, and why.

    Margins are the logit of the plain token minus that of the other one, computed in a batch of one and in
    one of ``batch_tokens``; ``noise`` is the greatest difference of any logit between the two. It is
    explained when the argmax over the batch is the other token, or the margin is within the noise.
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
    kind_a = lib.llama_vocab_type(target.vocab)
    kind_b = lib.llama_vocab_type(draft.vocab)
    if kind_a != kind_b or abs(target.vocab_count - draft.vocab_count) > PADDING_TOKENS:
        raise RefusedError(
            f"{draft.path.name} cannot draft for {target.path.name}: other vocabulary "
            f"({draft.vocab_count} tokens of kind {kind_b}, the target has {target.vocab_count} of kind {kind_a})"
        )
    for token in range(min(target.vocab_count, draft.vocab_count)):
        a = lib.llama_vocab_get_text(target.vocab, token)
        b = lib.llama_vocab_get_text(draft.vocab, token)
        if a != b:
            raise RefusedError(
                f"{draft.path.name} cannot draft for {target.path.name}: token {token} is {b!r} there and {a!r} here"
            )


def check_room(session: LlamaSession, prompt: Sequence[int], new_tokens: int) -> None:
    """RefusedError where the context is too short for ``new_tokens`` after ``prompt``."""
    if len(prompt) + new_tokens > session.context_tokens:
        raise RefusedError(
            f"{len(prompt)} + {new_tokens} tokens do not fit a context of {session.context_tokens}"
        )


def measure_pass_s(
    session: LlamaSession, sizes: Sequence[int], *, depth_tokens: int = 96, count: int = 5
) -> dict[int, float]:
    """Seconds of one pass over k tokens with all their logits behind so many others, for each k in ``sizes``.

    The lower quartile of ``count`` repetitions in turns: what disturbs a pass only ever makes it slower, and
    the first ones build the graphs. The cache is cleared before and after.
    """
    random = np.random.default_rng(0)
    times: dict[int, list[float]] = {size: [] for size in sizes}
    session.clear()
    if depth_tokens:
        session.decode(random.integers(0, session.vocab_count, depth_tokens).tolist(), position=0)
    for _ in range(count):
        for size, taken in times.items():
            tokens = random.integers(0, session.vocab_count, size).tolist()
            started_s = time.perf_counter()
            session.decode(tokens, position=depth_tokens, logits="all")
            taken.append(time.perf_counter() - started_s)
            session.truncate(depth_tokens)
    session.clear()
    return {size: sorted(taken)[(count - 1) // 4] for size, taken in times.items()}


def generate(
    target: LlamaSession,
    prompt: Sequence[int],
    new_tokens: int,
    drafter: Drafter | None = None,
    policy: DraftPolicy | None = None,
) -> Decoding:
    """Generate ``new_tokens`` tokens after ``prompt``, whatever they mean: the end of a text does not end it.

    Without a drafter and its policy one by one: what speculation is compared with. This is the only user of
    the target's sequence 0. RefusedError where the context is too short.
    """
    check_room(target, prompt, new_tokens)
    now_s = time.perf_counter
    begun_s = now_s()
    target.clear()
    if drafter:
        drafter.forget()
    target.decode(prompt, position=0)
    started_s = now_s()
    history = [*prompt, target.greedy()]
    end = len(prompt) + new_tokens
    cycles: list[Decoding] = []
    while len(history) < end:
        proposal = Proposal([], [])
        t0_s = drafting_s = now_s()
        if drafter and policy:
            if policy.wants_look(drafter.lag_tokens(history)):
                pairs = drafter.agreement(history, max(len(prompt) + 1, len(history) - _LOOK_TOKENS))
                drafting_s = now_s()
                policy.saw_look(pairs, drafting_s - t0_s)
            room = min(policy.limit(), end - len(history) - 1, _CYCLE_ROOM_TOKENS)
            if room > 0:
                proposal = drafter.propose(history, room, policy.go_on)
        drafted = proposal.tokens
        accepted = 0
        t1_s = now_s()
        target.decode([history[-1], *drafted], position=len(history) - 1, logits="all")
        token = target.greedy(0)
        while accepted < len(drafted) and drafted[accepted] == token:
            accepted += 1
            token = target.greedy(accepted)
        t2_s = now_s()
        history += [*drafted[:accepted], token]
        if accepted < len(drafted):
            target.truncate(len(history) - 1)
        cycles.append(_cycle(len(drafted), accepted, t1_s - t0_s, t2_s - t1_s))
        if policy:
            policy.saw_cycle(proposal.buckets, accepted, t1_s - drafting_s, t2_s - t1_s)
    return total(cycles).replace(
        tokens=tuple(history[len(prompt) : end]),
        duration_s=now_s() - started_s,
        prefill_s=started_s - begun_s,
        answer_count=1,
    )


def _cycle(drafted: int, accepted: int, draft_s: float, verify_s: float) -> Decoding:
    """One pass of the target: tokens drafted and accepted, and what both cost."""
    return Decoding(
        tokens=(),
        duration_s=draft_s + verify_s,
        prefill_s=0.0,
        cycle_count=1,
        plain_count=int(drafted == 0),
        drafted_count=drafted,
        accepted_count=accepted,
        tried_by_position=(1,) * min(accepted + 1, drafted),
        accepted_by_position=(1,) * accepted,
        draft_s=draft_s,
        verify_s=verify_s,
        lengths=(drafted,),
        widest_tokens=1 + drafted,
    )


def explain_difference(
    target: LlamaSession, prompt: Sequence[int], one: Sequence[int], other: Sequence[int], batch_tokens: int
) -> Difference | None:
    """Find the first token where two greedy outputs differ and compute its logits both ways; None when equal.

    ``one`` is plain decoding's, and the other one came from passes over ``batch_tokens`` tokens. The cache is
    cleared.
    """
    pairs = list(zip(one, other, strict=False))
    index = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
    if index is None:
        return None
    a, b = pairs[index]
    history = [*prompt, *one[:index]]
    last = len(history) - 1
    target.clear()
    # As plain decoding filled the cache: the prompt in one pass, then one token after the other.
    target.decode(prompt, position=0)
    for position in range(len(prompt), len(history)):
        target.decode((history[position],), position=position)
    single = target.logits().copy()
    batch = single
    noise = 0.0
    # Where in the batch the token stood is not known: try each place.
    for start in range(max(len(history) - batch_tokens, 0), len(history)):
        filler = [history[-1]] * (start + batch_tokens - len(history))
        target.truncate(start)
        target.decode([*history[start:], *filler], position=start, logits="all")
        row = target.logits(last - start).copy()
        noise = max(noise, float(np.abs(row - single).max()))
        if int(row.argmax()) == b:
            batch = row
        target.truncate(start)
        target.decode(history[start:], position=start)
    margin_single = float(single[a] - single[b])
    margin_batch = float(batch[a] - batch[b])
    explained = margin_batch <= 0 or margin_single <= 2 * noise
    return Difference(index, a, b, margin_single, margin_batch, noise, explained)


def total(parts: Iterable[Decoding]) -> Decoding:
    """Sums over several answers, or over the passes of one."""
    every = list(parts)
    summed: dict[str, Any] = {}
    for name in Decoding.__struct_fields__:
        values = [getattr(part, name) for part in every]
        if name == "widest_tokens":
            summed[name] = max(values, default=1)
        elif name.endswith("_by_position"):
            summed[name] = tuple(map(sum, zip_longest(*values, fillvalue=0)))
        elif name in {"tokens", "lengths"}:
            summed[name] = tuple(chain.from_iterable(values))
        else:
            summed[name] = sum(values)
    return Decoding(**summed)
