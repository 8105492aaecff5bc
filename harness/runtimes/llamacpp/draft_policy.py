"""How many tokens to draft: a fixed number, or as many as pay, learnt while running.

The adaptive policy maximises tokens per second. With s_i the chance that the first i drafted tokens are all accepted,
V(k) the time to verify k tokens in one pass of the target and d the time to draft one, a cycle that drafts m tokens
yields 1 + s_1 + ... + s_m tokens in m d + V(m + 1) seconds. Stopping rule: with r the best rate known (at least that
of plain decoding), go on as long as some m > j has a greater ``tokens - r * time`` than stopping at j; that is the
renewal-reward optimum when r is the rate achieved. V is a table and not a line: kernels work on groups of rows, and a
pass over 8 tokens may take less time than one over 5. A pass is then filled up to the size that takes least.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Final

from harness.predict.speculative import expected_tokens_per_cycle
from harness.runtimes.llamacpp.drafters import BUCKET_COUNT

_PRIOR_COUNT: Final = 2.0
"""Weight of the overall acceptance in a bucket's own estimate, in tokens."""
_MEMORY: Final = 0.995
"""Share of the old counts kept with each token: the text changes, some 200 tokens are remembered."""
_TIME_WEIGHT: Final = 0.1
"""Weight of the newest time in a running mean."""
_OUTLIER_RATIO: Final = 3.0
"""A pass this many times slower than expected says something about the machine, not about the pass."""
_FORGIVEN_CYCLES: Final = 2
"""So many slow ones in a row are the machine's; one more, and it is what a pass costs now."""
_DISTURBED_RATIO: Final = 2.0
"""A whole cycle this many times slower than expected is not held against speculation."""
_MARGIN_RATIO: Final = 1.03
"""Predicted gain below which speculation is not worth its risk."""
_PATIENCE_CYCLES: Final = 8
_REFERENCE_CYCLES: Final = 24
"""A plain step every so many cycles keeps the time that speculation is judged by honest ..."""
_HASTY_REFERENCE_CYCLES: Final = 4
"""... and this soon when passes have become slower or faster since: is it the machine, or only the longer passes?"""
_DRIFTED_RATIO: Final = 1.2
_FIRST_PAUSE_TOKENS: Final = 32
_FIRST_LOOK_TOKENS: Final = 16
_LONGEST_PAUSE_TOKENS: Final = 1024
_PROBE_SHARE_RATIO: Final = 0.01
"""Share of all time that may go into looking whether it would pay again."""


class CostTable:
    """Seconds of one pass of the target over k tokens, filled up where that is faster: measured, and corrected since.

    ``verify_s`` are seconds by number of tokens, batch 1 included, kept as ``before_s``; ``draft_s`` is the time to
    draft one.
    """

    def __init__(self, verify_s: Mapping[int, float], draft_s: float) -> None:
        if 1 not in verify_s:
            raise ValueError("the table of verification times needs batch 1")
        self._sizes = sorted(verify_s)
        self.before_s = dict(verify_s)
        self._now: dict[int, float] = {}
        self._seen: dict[int, int] = {}
        self._drift_ratio = 1.0
        self._outlier_count = 0
        self._drift_at_plain_ratio = 1.0
        self.draft_s = self._draft_before_s = draft_s

    def _table(self, size: int) -> float:
        sizes = self._sizes
        if size in self.before_s:
            return self.before_s[size]
        right = min(max(bisect_left(sizes, size), 1), len(sizes) - 1)
        if right == 0:
            return self.before_s[sizes[0]] * size
        a, b = sizes[right - 1], sizes[right]
        slope = (self.before_s[b] - self.before_s[a]) / (b - a)
        return self.before_s[a] + slope * (size - a)

    @property
    def has_drifted(self) -> bool:
        """Whether passes have become slower or faster since the last one over a single token."""
        change = self._drift_ratio / self._drift_at_plain_ratio
        return max(change, 1.0 / change) > _DRIFTED_RATIO

    def measured_s(self, drafted_count: int) -> float:
        """Seconds of a cycle as they were measured before the run."""
        return drafted_count * self._draft_before_s + self._table(self._least(drafted_count + 1, self._table))

    def verify_s(self, size: int) -> float:
        """Expected seconds of a pass over ``size`` tokens, filled up."""
        return self._unfilled_s(self.filled(size))

    def speedup_ratio(self, draft_tokens: int, acceptance: float) -> float:
        """Speed over plain decoding at a draft length m and acceptance a, tokens independent.

        (1 + a + ... + a**m) V(1) / ((m + a**m) d + V(m + 1)): a cycle whose tokens are all accepted leaves the draft
        one more token to catch up on. With V constant and without that term it is Leviathan et al. 2023, theorem 3.8.
        """
        time_s = (draft_tokens + acceptance**draft_tokens) * self.draft_s + self.verify_s(draft_tokens + 1)
        return expected_tokens_per_cycle(acceptance, draft_tokens) * self.verify_s(1) / time_s

    def filled(self, size: int) -> int:
        """The size of at least ``size`` tokens whose pass takes least: that one, or one that was timed."""
        return self._least(size, self._unfilled_s)

    def _least(self, size: int, cost: Callable[[int], float]) -> int:
        return min((size, *(s for s in self._sizes if s > size)), key=cost) if size > 1 else size

    def _unfilled_s(self, size: int) -> float:
        if size in self._now:
            return self._now[size]
        return self._table(size) * self._drift_ratio

    def saw_pass(self, size: int, duration_s: float) -> None:
        """Learn from one pass of the target over ``size`` tokens in all."""
        expected_s = self._unfilled_s(size)
        if duration_s > _OUTLIER_RATIO * expected_s and self._outlier_count < _FORGIVEN_CYCLES:
            self._outlier_count += 1
            return
        self._outlier_count = 0
        # The first passes count for more: what was measured before may have been measured on a disturbed machine.
        count = self._seen[size] = self._seen.get(size, 0) + 1
        self._now[size] = expected_s + max(_TIME_WEIGHT, 1.0 / (count + 1)) * (duration_s - expected_s)
        ratio = duration_s / self._table(size)
        self._drift_ratio += 0.5 * _TIME_WEIGHT * (ratio - self._drift_ratio)
        if size == 1:
            self._drift_at_plain_ratio = self._drift_ratio
        for other in self._now:  # sizes not seen lately drift with the machine
            if other != size:
                self._now[other] += 0.02 * (self._table(other) * self._drift_ratio - self._now[other])

    def saw_draft(self, count: int, duration_s: float) -> None:
        """Learn from drafting ``count`` tokens."""
        each_s = duration_s / count
        if self.draft_s == 0 or each_s < _OUTLIER_RATIO * self.draft_s:
            self.draft_s += _TIME_WEIGHT * (each_s - self.draft_s)


class FixedPolicy:
    """Always the same number of tokens, nothing learnt; passes are filled up where their costs are known."""

    def __init__(self, draft_tokens: int, costs: CostTable | None = None) -> None:
        self.most_tokens = draft_tokens
        self.costs = costs

    def limit(self) -> int:
        """Most tokens to draft in this cycle; 0 for a plain step."""
        return self.most_tokens

    def go_on(self, buckets: Sequence[int]) -> bool:
        """Whether to draft one more after these."""
        return len(buckets) < self.most_tokens

    def pass_tokens(self, size: int) -> int:
        """How many tokens a pass over ``size`` tokens is filled up to."""
        return self.costs.filled(size) if self.costs else size

    def saw_cycle(self, buckets: Sequence[int], accepted_count: int, draft_s: float, verify_s: float) -> None:
        """Learn from one cycle."""

    def wants_probe(self, lag_tokens: int) -> bool:  # noqa: ARG002
        """Whether acceptance should be looked up on ``lag_tokens`` tokens already there, in one batched pass."""
        return False

    def saw_agreement(self, found: Sequence[tuple[int, bool]], lag_tokens: int, cost_s: float) -> None:
        """Learn from such a look."""


class AdaptivePolicy(FixedPolicy):
    """Drafts as long as it pays; turns itself off when it does not, and looks again now and then.

    ``costs`` are those of this pair of models, ``seen`` (bucket, agreed) pairs known beforehand.
    """

    costs: CostTable

    def __init__(
        self,
        costs: CostTable,
        *,
        most_tokens: int = 15,
        seen: Sequence[tuple[int, bool]] = (),
    ) -> None:
        super().__init__(most_tokens, costs)
        self._tried = [0.0] * BUCKET_COUNT
        self._agreed = [0.0] * BUCKET_COUNT
        self._elapsed_s = 0.0
        self._probe_s = 0.0
        self._probe_token_s = costs.draft_s
        self._window: list[tuple[int, float, float]] = []
        self._rate = 0.0
        self._pause_length_tokens = _FIRST_PAUSE_TOKENS
        self._since_plain_count = 0
        self._slow_count = 0
        self._tries_again = False
        self.off_count = 0
        for bucket, agreed in seen:
            self._count(bucket, agreed)
        self._on = bool(seen)
        self._pause_tokens = 0 if seen else _FIRST_LOOK_TOKENS

    # -- what is known ------------------------------------------------------------------------------------------

    def _count(self, bucket: int, agreed: bool) -> None:
        for i in range(BUCKET_COUNT):
            self._tried[i] *= _MEMORY
            self._agreed[i] *= _MEMORY
        self._tried[bucket] += 1
        self._agreed[bucket] += agreed

    def acceptance_ratio(self, bucket: int | None = None) -> float:
        """Chance that a token is accepted given that those before it were: of one bucket, or of all.

        A bucket's own count is drawn towards the overall ratio by a prior worth two tokens, the overall one towards
        one half.
        """
        overall = (sum(self._agreed) + 1.0) / (sum(self._tried) + 2.0)
        if bucket is None:
            return overall
        return (self._agreed[bucket] + _PRIOR_COUNT * overall) / (self._tried[bucket] + _PRIOR_COUNT)

    def best(self) -> tuple[int, float]:
        """(draft length of the greatest predicted rate, that rate over plain decoding); 0 for "do not"."""
        a = self.acceptance_ratio()
        rates = ((self.costs.speedup_ratio(m, a), m) for m in range(1, self.most_tokens + 1))
        ratio, tokens = max(rates, key=itemgetter(0), default=(1.0, 0))
        return (tokens, ratio) if ratio > 1 else (0, 1.0)

    # -- decisions ----------------------------------------------------------------------------------------------

    def limit(self) -> int:
        """Most tokens to draft now; 0 while off."""
        _, gain = self.best()
        if not self._on:
            # Off because passes had become slow, not because tokens were refused: where they cost what they did, trying
            # again costs less than asking the draft.
            if not (self._tries_again and self._pause_tokens == 0 and gain >= _MARGIN_RATIO):
                return 0
            self._on = True
        if gain < _MARGIN_RATIO and not self._window_pays():
            self._turn_off()
            return 0
        if self._since_plain_count >= (_HASTY_REFERENCE_CYCLES if self.costs.has_drifted else _REFERENCE_CYCLES):
            return 0
        self._rate = gain / self.costs.verify_s(1)
        return self.most_tokens

    def go_on(self, buckets: Sequence[int]) -> bool:
        """Whether some longer draft beats verifying now; see the module's text."""
        survival = 1.0
        for bucket in buckets:
            survival *= self.acceptance_ratio(bucket)
        j = len(buckets)
        verify_now_s = self.costs.verify_s(j + 1)
        a = self.acceptance_ratio()
        gain_tokens, s = 0.0, survival
        for m in range(j + 1, self.most_tokens + 1):
            s *= a
            gain_tokens += s
            extra_s = (m - j) * self.costs.draft_s + self.costs.verify_s(m + 1) - verify_now_s
            if gain_tokens > self._rate * extra_s:
                return True
        return False

    def _window_pays(self, margin_ratio: float = _MARGIN_RATIO) -> bool:
        tokens, time_s, _ = map(sum, zip(*self._window, strict=True)) if self._window else (0, 0.0, 0.0)
        return len(self._window) >= _PATIENCE_CYCLES and tokens * self.costs.verify_s(1) >= margin_ratio * time_s

    def _turn_off(self) -> None:
        """Stop drafting.

        Where the tokens of the last cycles would have paid at the times measured before, the time is to blame, and
        speculation tries again when passes cost what they did.
        """
        self._on = False
        tokens, expected_s = sum(t for t, _, _ in self._window), sum(s for _, _, s in self._window)
        self._tries_again = tokens * self.costs.measured_s(0) >= _MARGIN_RATIO * expected_s > 0
        self.off_count += 1
        self._pause_tokens = self._pause_length_tokens
        self._pause_length_tokens = min(2 * self._pause_length_tokens, _LONGEST_PAUSE_TOKENS)
        self._window.clear()

    def wants_probe(self, lag_tokens: int) -> bool:
        """When a pause is over and the time spent on probes allows one more over ``lag_tokens``."""
        if self._on or self._pause_tokens > 0:
            return False
        cost_s = lag_tokens * self._probe_token_s
        if self._probe_s == 0 and not any(self._tried):
            return True  # nothing is known: one look is owed
        return self._probe_s + cost_s <= _PROBE_SHARE_RATIO * self._elapsed_s

    # -- learning -----------------------------------------------------------------------------------------------

    def saw_cycle(self, buckets: Sequence[int], accepted_count: int, draft_s: float, verify_s: float) -> None:
        """Counts the tokens that were really compared: the accepted ones and the first rejected one."""
        expected_s = len(buckets) * self.costs.draft_s + self.costs.verify_s(len(buckets) + 1)
        self.costs.saw_pass(self.pass_tokens(len(buckets) + 1), verify_s)
        self._elapsed_s += draft_s + verify_s
        self._since_plain_count = self._since_plain_count + 1 if buckets else 0
        if not buckets:
            self._pause_tokens = max(0, self._pause_tokens - 1)
            return
        self.costs.saw_draft(len(buckets), draft_s)
        for index, bucket in enumerate(buckets[: accepted_count + 1]):
            self._count(bucket, index < accepted_count)
        if draft_s + verify_s > _DISTURBED_RATIO * expected_s and self._slow_count < _FORGIVEN_CYCLES:
            self._slow_count += 1
            return
        self._slow_count = 0
        self._window.append((accepted_count + 1, draft_s + verify_s, self.costs.measured_s(len(buckets))))
        del self._window[: -2 * _PATIENCE_CYCLES]
        if len(self._window) >= _PATIENCE_CYCLES:
            if self._window_pays(1.0):
                self._pause_length_tokens = _FIRST_PAUSE_TOKENS
            else:
                self._turn_off()

    def saw_agreement(self, found: Sequence[tuple[int, bool]], lag_tokens: int, cost_s: float) -> None:
        """Turn on if what was seen says that it pays now; else wait twice as long."""
        self._probe_s += cost_s
        self._elapsed_s += cost_s
        self._probe_token_s = cost_s / max(lag_tokens, 1)
        for bucket, agreed in found:
            self._count(bucket, agreed)
        self._on = True
        if self.best()[1] < _MARGIN_RATIO:
            self._turn_off()
