"""How many tokens to draft: a fixed number, or as many as pay, learnt while running.

The policy maximises tokens per second. With s_i the chance that the first i drafted tokens are all accepted,
V(k) the time to verify k tokens in one pass of the target and d the time to draft one, a cycle that drafts m
tokens yields 1 + s_1 + ... + s_m tokens in m d + V(m + 1) seconds. With r the best rate known, it drafts on
as long as some m > j has a greater ``tokens - r * time`` than stopping at j; that is the renewal-reward
optimum when r is the rate achieved. V is a table and not a line: kernels work on groups of rows, and a pass
over 8 tokens may take less time than one over 5.

Costs and acceptance are learnt from every pass. Where no draft is worth its risk, passes are plain, and the
draft is asked now and then whether it would have agreed with what came.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from harness.predict.speculative import WORTH_RATIO, expected_tokens_per_cycle
from harness.runtimes.llamacpp.drafters import BUCKET_COUNT, NOTHING

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
