"""Speculative decoding on two sessions: draft some tokens, verify them in one pass of the target, roll back the rest.

Greedy output is the target's own, except where its argmax over a batch differs from that over a single token
(kernels sum in another order): those places are found and explained by :func:`explain_difference`.

Where drafted tokens come from: a smaller model, the text itself, or a coarser copy of the target. How many:
a fixed number, or as many as pay, learnt while running.

The policy maximises tokens per second. With s_i the chance that the first i drafted tokens are all accepted,
V(k) the time to verify k tokens in one pass of the target and d the time to draft one, a cycle that drafts m
tokens yields 1 + s_1 + ... + s_m tokens in m d + V(m + 1) seconds. With r the best rate known, it drafts on
as long as some m > j has a greater ``tokens - r * time`` than stopping at j; that is the renewal-reward
optimum when r is the rate achieved. V is a table and not a line: kernels work on groups of rows, and a pass
over 8 tokens may take less time than one over 5.

Costs and acceptance are learnt from every pass. Where no draft is worth its risk, passes are plain, and the
draft is asked now and then whether it would have agreed with what came.
"""

import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.core.drafting import PADDING_TOKENS, Decoding
from harness.core.errors import RefusedError
from harness.runtimes.llamacpp.session import LlamaSession
from harness.speed.draft_cycle import WORTH_RATIO, expected_tokens_per_cycle

_LONGEST_TOKENS, _SHORTEST_TOKENS = 5, 2
_EDGES = (0.2, 0.4, 0.6, 0.75, 0.85, 0.92, 0.97)
BUCKET_COUNT = len(_EDGES) + 1
"""Classes of confidence that a drafter sorts its tokens into; what each is worth is learnt, not assumed."""
NOTHING = -1
"""In place of a class: nothing is proposed there."""


class DraftedTokens(NamedTuple):
    """Drafted tokens, oldest first, and the confidence class of each, 0 (least) to BUCKET_COUNT - 1."""

    tokens: list[int]
    buckets: list[int]


GoOn = Callable[[Sequence[int]], bool]
"""Asked with the buckets so far whether one more token is worth drafting."""


class ModelDrafter:
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

    def propose(self, history: Sequence[int], limit: int, go_on: GoOn) -> DraftedTokens:
        """Decode one token after the other, each by one pass of this model, until ``go_on`` says stop."""
        proposal = DraftedTokens([], [])
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


class LookupDrafter:
    """Draft the tokens that followed the last time the same run of tokens stood in the text (prompt lookup).

    A draft costs no pass of any model. Runs of ``_LONGEST_TOKENS`` are looked for first, and those of fewer
    than ``_SHORTEST_TOKENS`` are no match. Source: Saxena 2023, "Prompt Lookup Decoding".
    """

    def lag_tokens(self, _history: Sequence[int]) -> int:
        """None: it runs no model."""
        return 0

    def forget(self) -> None:
        """It keeps nothing."""

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

    def propose(self, history: Sequence[int], limit: int, go_on: GoOn) -> DraftedTokens:
        """Continue as the text did after the longest match."""
        proposal = DraftedTokens([], [])
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


Drafter = ModelDrafter | LookupDrafter
"""Where drafted tokens come from.

``propose`` gives at most so many tokens to follow a history, maybe none; ``agreement`` (bucket, whether it
would have proposed the right token) for each position from one on, NOTHING in place of a bucket where it
would have proposed none; ``lag_tokens`` says how many tokens a model would have to be run over before it
could draft.
"""


def _likeliest(logits: NDArray[np.float32]) -> tuple[int, int]:
    """The likeliest token, and the class of the drafter's own belief in it: softmax(logits)[token]."""
    token = int(logits.argmax())
    return token, bisect_right(_EDGES, 1.0 / float(np.exp(logits - logits[token]).sum()))


_PRIOR_COUNT: Final = 2.0
"""Weight of the overall acceptance in a bucket's own estimate, in tokens."""
_MEMORY: Final = 0.995
"""Share of the old counts kept with each token: the text changes, some 200 tokens are remembered."""
_TIME_WEIGHT: Final = 0.1
"""Weight of the newest time in a running mean."""
_MOST_RATIO: Final = 2.0
"""A pass slower than so many times what was expected counts as that: the rest is the machine's."""
_PLAIN_EVERY_CYCLES: Final = 24
"""A plain step every so many cycles keeps the time that speculation is judged by honest."""
_SIZES: Final = 128
"""Passes of the target have fewer tokens."""
_LOOK_SHARE_RATIO: Final = 0.01
"""Share of all time that may go into looking whether it would pay again."""


class CostTable:
    """Seconds of one pass of the target over k tokens: measured, and corrected since.

    ``verify_s`` are seconds by number of tokens, batch 1 included, kept as ``before_s``; ``draft_s`` is the
    time to draft one. Passes over one token and over several have a correction each: what the machine does
    to one kind it need not do to the other.
    """

    def __init__(self, verify_s: Mapping[int, float], draft_s: float) -> None:
        if 1 not in verify_s:
            raise ValueError("the table of verification times needs batch 1")
        self.before_s = dict(verify_s)
        self.draft_s = draft_s
        sizes = sorted(verify_s)
        between = np.interp(range(_SIZES), sizes, [verify_s[size] for size in sizes])
        self._table_s: list[float] = between.tolist()  # asked for many times a cycle
        self._ratios = [1.0, 1.0]
        self._seen = [0, 0]

    def verify_s(self, size: int) -> float:
        """Expected seconds of a pass over ``size`` tokens."""
        return self._table_s[size] * self._ratios[size > 1]

    def speedup_ratio(self, draft_tokens: int, acceptance: float) -> float:
        """Speed over plain decoding at a draft length m and acceptance a, tokens independent.

        (1 + a + ... + a**m) V(1) / ((m + a**m) d + V(m + 1)): a cycle whose tokens are all accepted leaves
        the draft one more token to catch up on. With V constant and without that term it is Leviathan et al.
        2023, theorem 3.8.
        """
        time_s = (draft_tokens + acceptance**draft_tokens) * self.draft_s + self.verify_s(draft_tokens + 1)
        return expected_tokens_per_cycle(acceptance, draft_tokens) * self.verify_s(1) / time_s

    def saw_pass(self, size: int, duration_s: float) -> None:
        """Learn from one pass of the target over ``size`` tokens in all."""
        kind = size > 1
        self._seen[kind] += 1
        # The first passes count for more: what was measured before may have been measured on a disturbed
        # machine.
        weight = max(_TIME_WEIGHT, 1.0 / (self._seen[kind] + 1))
        told_ratio = min(duration_s / self.verify_s(size), _MOST_RATIO)
        self._ratios[kind] *= 1 + weight * (told_ratio - 1)

    def saw_draft(self, count: int, duration_s: float) -> None:
        """Learn from drafting ``count`` tokens."""
        each_s = duration_s / count
        if self.draft_s:
            each_s = min(each_s, _MOST_RATIO * self.draft_s)
        self.draft_s += _TIME_WEIGHT * (each_s - self.draft_s)


class DraftPolicy:
    """Drafts as long as it pays, and looks again now and then when it does not.

    ``costs`` are those of this pair of models, ``seen`` (bucket, agreed) pairs known beforehand. With
    ``draft_tokens`` it drafts always so many.
    """

    def __init__(
        self,
        costs: CostTable,
        *,
        draft_tokens: int = 0,
        most_tokens: int = 15,
        seen: Sequence[tuple[int, bool]] = (),
    ) -> None:
        self.costs = costs
        self.draft_tokens = draft_tokens
        self.most_tokens = draft_tokens or most_tokens
        self._tried = [0.0] * BUCKET_COUNT
        self._agreed = [0.0] * BUCKET_COUNT
        self._elapsed_s = self._look_s = 0.0
        self._rate = 0.0
        self._drafted_cycles = 0
        self._learn(seen)

    def _learn(self, pairs: Sequence[tuple[int, bool]]) -> None:
        for bucket, agreed in pairs:
            if bucket != NOTHING:
                self._tried = [count * _MEMORY for count in self._tried]
                self._agreed = [count * _MEMORY for count in self._agreed]
                self._tried[bucket] += 1
                self._agreed[bucket] += agreed

    def acceptance_ratio(self, bucket: int | None = None) -> float:
        """Chance that a token is accepted given that those before it were: of one bucket, or of all.

        A bucket's own count is drawn towards the overall ratio by a prior worth two tokens, the overall one
        towards one half.
        """
        overall = (sum(self._agreed) + 1.0) / (sum(self._tried) + 2.0)
        if bucket is None:
            return overall
        return (self._agreed[bucket] + _PRIOR_COUNT * overall) / (self._tried[bucket] + _PRIOR_COUNT)

    def best(self) -> tuple[int, float]:
        """(draft length of the greatest predicted rate, that rate over plain decoding); 0 for "do not"."""
        acceptance = self.acceptance_ratio()
        best = (0, 1.0)
        for length in range(1, self.most_tokens + 1):
            ratio = self.costs.speedup_ratio(length, acceptance)
            if ratio >= max(best[1], WORTH_RATIO):
                best = (length, ratio)
        return best

    def replay(self, answers: Sequence[Sequence[tuple[int, bool]]]) -> float:
        """Speed over plain decoding on answers whose (bucket, agreed) pairs are known, cycle by cycle.

        Agreement comes in runs, and at many places nothing is proposed: tokens that are independent tell
        neither.
        """
        token_count = 0
        seconds = 0.0
        for pairs in answers:
            at = 0
            while at < len(pairs):
                buckets: list[int] = []
                for bucket, _ in pairs[at : at + self.limit()]:
                    if bucket == NOTHING:
                        break
                    buckets.append(bucket)
                    if not self.go_on(buckets):
                        break
                seconds += len(buckets) * self.costs.draft_s + self.costs.verify_s(len(buckets) + 1)
                for _, same in pairs[at : at + len(buckets)]:
                    if not same:
                        break
                    token_count += 1
                    at += 1
                token_count += 1
                at += 1
        return token_count * self.costs.verify_s(1) / seconds if seconds else 1.0

    def limit(self) -> int:
        """Most tokens to draft now; 0 for a plain step."""
        if self.draft_tokens:
            return self.draft_tokens
        length, gain = self.best()
        self._rate = gain / self.costs.verify_s(1)
        if length and self._drafted_cycles < _PLAIN_EVERY_CYCLES:
            return self.most_tokens
        return 0

    def go_on(self, buckets: Sequence[int]) -> bool:
        """Whether some longer draft beats verifying now; see the module's text."""
        drafted = len(buckets)
        if self.draft_tokens:
            return drafted < self.draft_tokens
        survival = 1.0
        for bucket in buckets:
            survival *= self.acceptance_ratio(bucket)
        acceptance = self.acceptance_ratio()
        gain_tokens = 0.0
        for more in range(1, self.most_tokens - drafted + 1):
            gain_tokens += survival * acceptance**more
            passes_s = self.costs.verify_s(drafted + more + 1) - self.costs.verify_s(drafted + 1)
            if gain_tokens > self._rate * (more * self.costs.draft_s + passes_s):
                return True
        return False

    def wants_look(self, lag_tokens: int) -> bool:
        """Whether to ask the draft, ``lag_tokens`` behind, about what came: while it is off, in its share of time."""
        if self.draft_tokens or self.best()[0]:
            return False
        return self._look_s + lag_tokens * self.costs.draft_s <= _LOOK_SHARE_RATIO * self._elapsed_s

    def saw_look(self, pairs: Sequence[tuple[int, bool]], duration_s: float) -> None:
        """Learn from such a look: (bucket, agreed) of each token."""
        self._look_s += duration_s
        self._learn(pairs)

    def saw_cycle(self, buckets: Sequence[int], accepted_count: int, draft_s: float, verify_s: float) -> None:
        """Learn from one cycle.

        It counts the tokens that were really compared: the accepted ones and the first rejected one.
        """
        self._elapsed_s += draft_s + verify_s
        self._drafted_cycles = self._drafted_cycles + 1 if buckets else 0
        self.costs.saw_pass(len(buckets) + 1, verify_s)
        if buckets:
            self.costs.saw_draft(len(buckets), draft_s)
        self._learn([(bucket, i < accepted_count) for i, bucket in enumerate(buckets[: accepted_count + 1])])


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
        proposal = DraftedTokens([], [])
        t0_s = drafting_s = now_s()
        if drafter and policy:
            if policy.wants_look(drafter.lag_tokens(history)):
                pairs = drafter.agreement(history, max(len(prompt) + 1, len(history) - _LOOK_TOKENS))
                drafting_s = now_s()
                policy.saw_look(pairs, drafting_s - t0_s)
            room = min(policy.limit(), end - len(history) - 1)
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
    """Find the first token where two greedy outputs differ, and compute its logits both ways (None if equal).

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
