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

from collections import Counter
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Final

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
_LOOK_SHARE_RATIO: Final = 0.01
"""Share of all time that may go into looking whether it would pay again."""


class CostTable:
    """Seconds of one pass of the target over k tokens: measured, and corrected since.

    ``verify_s`` are seconds by number of tokens, batch 1 included, kept as ``before_s``; ``draft_s`` is the
    time to draft one.
    """

    def __init__(self, verify_s: Mapping[int, float], draft_s: float) -> None:
        if 1 not in verify_s:
            raise ValueError("the table of verification times needs batch 1")
        self.before_s = dict(verify_s)
        self.draft_s = draft_s
        self._sizes = sorted(verify_s)
        self._now: dict[int, float] = {}
        self._seen: Counter[int] = Counter()
        self._drift_ratio = (
            1.0  # of passes over several tokens: sizes that were not seen drift with the others
        )

    def _table(self, size: int) -> float:
        if size in self.before_s or len(self._sizes) == 1:
            return self.before_s.get(size, self.before_s[1] * size)
        a, b = next(
            (p for p in zip(self._sizes, self._sizes[1:], strict=False) if size < p[1]), self._sizes[-2:]
        )
        slope = (self.before_s[b] - self.before_s[a]) / (b - a)
        return self.before_s[a] + slope * (size - a)

    def verify_s(self, size: int) -> float:
        """Expected seconds of a pass over ``size`` tokens."""
        return self._now.get(size) or self._table(size) * (self._drift_ratio if size > 1 else 1.0)

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
        expected_s = self.verify_s(size)
        self._seen[size] += 1
        # The first passes count for more: what was measured before may have been measured on a disturbed
        # machine.
        weight = max(_TIME_WEIGHT, 1.0 / (self._seen[size] + 1))
        self._now[size] = expected_s + weight * (min(duration_s, _MOST_RATIO * expected_s) - expected_s)
        if size > 1:
            self._drift_ratio += _TIME_WEIGHT * (self._now[size] / self._table(size) - self._drift_ratio)

    def saw_draft(self, count: int, duration_s: float) -> None:
        """Learn from drafting ``count`` tokens."""
        if self.draft_s:
            each_s = min(duration_s / count, _MOST_RATIO * self.draft_s)
        else:
            each_s = duration_s / count
        self.draft_s += _TIME_WEIGHT * (each_s - self.draft_s)


class DraftPolicy:
    """Drafts as long as it pays, and looks again now and then when it does not.

    ``costs`` are those of this pair of models, ``seen`` (bucket, agreed) pairs known beforehand, ``read_s``
    the time in which the draft reads a token of the text. With ``draft_tokens`` it drafts always so many.
    """

    def __init__(
        self,
        costs: CostTable,
        *,
        draft_tokens: int = 0,
        most_tokens: int = 15,
        seen: Sequence[tuple[int, bool]] = (),
        read_s: float = 0.0,
    ) -> None:
        self.costs = costs
        self.draft_tokens = draft_tokens
        self.most_tokens = draft_tokens or most_tokens
        self._tried = [0.0] * BUCKET_COUNT
        self._agreed = [0.0] * BUCKET_COUNT
        self._elapsed_s = self._look_s = 0.0
        self._look_token_s = read_s or costs.draft_s
        self._rate = 0.0
        self._drafted_cycles = 0
        for bucket, agreed in seen:
            self._count(bucket, agreed)

    def _count(self, bucket: int, agreed: bool) -> None:
        if bucket == NOTHING:
            return
        for i in range(BUCKET_COUNT):
            self._tried[i] *= _MEMORY
            self._agreed[i] *= _MEMORY
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
        rates = ((m, self.costs.speedup_ratio(m, acceptance)) for m in range(1, self.most_tokens + 1))
        length, ratio = max(rates, key=itemgetter(1), default=(0, 1.0))
        if ratio >= WORTH_RATIO:
            return (length, ratio)
        return (0, 1.0)

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
                buckets = list[int]()
                for bucket, _ in pairs[at : at + self.limit()]:
                    if bucket == NOTHING:
                        break
                    buckets.append(bucket)
                    if not self.go_on(buckets):
                        break
                agreed = [same for _, same in pairs[at : at + len(buckets)]]
                passed = 1 + [*agreed, False].index(False)
                token_count = token_count + passed
                at = at + passed
                seconds += len(buckets) * self.costs.draft_s + self.costs.verify_s(len(buckets) + 1)
        if seconds:
            return token_count * self.costs.verify_s(1) / seconds
        return 1.0

    def limit(self, lag_tokens: int = 0, left_tokens: int = 0) -> int:
        """Most tokens to draft now; 0 for a plain step.

        The draft is ``lag_tokens`` behind, which it reads first: the tokens that are left must earn that.
        """
        if self.draft_tokens:
            return self.draft_tokens
        length, gain = self.best()
        self._rate = gain / self.costs.verify_s(1)
        if lag_tokens * self._look_token_s > left_tokens * self.costs.verify_s(1) * (1 - 1 / gain):
            return 0
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
        cost_s = lag_tokens * self._look_token_s
        is_off = not self.draft_tokens and not self.best()[0]
        return is_off and self._look_s + cost_s <= _LOOK_SHARE_RATIO * self._elapsed_s

    def saw_look(self, pairs: Sequence[tuple[int, bool]], lag_tokens: int, duration_s: float) -> None:
        """Learn from such a look: (bucket, agreed) of each token."""
        self._look_s += duration_s
        self._look_token_s = duration_s / max(lag_tokens, 1)
        for bucket, agreed in pairs:
            self._count(bucket, agreed)

    def saw_cycle(self, buckets: Sequence[int], accepted_count: int, draft_s: float, verify_s: float) -> None:
        """Learn from one cycle.

        It counts the tokens that were really compared: the accepted ones and the first rejected one.
        """
        self._elapsed_s += draft_s + verify_s
        self._drafted_cycles = self._drafted_cycles + 1 if buckets else 0
        self.costs.saw_pass(len(buckets) + 1, verify_s)
        if buckets:
            self.costs.saw_draft(len(buckets), draft_s)
        for index, bucket in enumerate(buckets[: accepted_count + 1]):
            self._count(bucket, index < accepted_count)
