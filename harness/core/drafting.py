"""What drafted tokens cost and gave."""

from typing import Final

from harness.core.base import Frozen
from harness.core.device import Span
from harness.core.model import Count
from harness.core.units import counted

PADDING_TOKENS: Final = 128
"""Rows that some makers add to the table so that its size is round: vocabularies that differ by more are
others."""


class Decoding(Frozen):
    """One answer and what it cost.

    Attributes:
        duration_s: From the prompt being in the target's cache to the last token.
        prefill_s: Time of the target over the prompt.
        cycle_count: Passes of the target after the prompt.
        plain_count: Of those, passes without a draft.
        tried_by_position: Cycles whose i-th drafted token was compared.
        accepted_by_position: Cycles whose i-th drafted token was accepted.
        draft_s: Time of drafting, catching up and probing included.
        answer_count: Answers summed up here.
        widest_tokens: Tokens of the widest pass after the prompt.
    """

    tokens: tuple[int, ...]
    duration_s: Span
    prefill_s: float
    cycle_count: Count = 0
    plain_count: Count = 0
    drafted_count: Count = 0
    accepted_count: Count = 0
    tried_by_position: tuple[int, ...] = ()
    accepted_by_position: tuple[int, ...] = ()
    draft_s: float = 0.0
    verify_s: float = 0.0
    lengths: tuple[int, ...] = ()
    answer_count: Count = 1
    widest_tokens: Count = 1

    @property
    def decoded_count(self) -> int:
        """Tokens that passes after the prompt gave: the first of each answer comes with the prompt's own pass."""
        return len(self.tokens) - self.answer_count

    @property
    def tokens_per_s(self) -> float:
        """Speed after the prompt."""
        return self.decoded_count / self.duration_s

    @property
    def tokens_per_cycle(self) -> float:
        """New tokens for each pass of the target."""
        return self.decoded_count / max(self.cycle_count, 1)


class DraftAdvice(Frozen):
    """Said before the run.

    Attributes:
        draft_tokens: The fixed length that was asked for, else the best one; 0 for "do not".
        speedup_ratio: Predicted speed over plain decoding, at the fixed length or adaptive; 1 for "do not".
        acceptance_ratio: Share of drafted tokens expected to be accepted, given that those before them were.
        ceiling_ratio: The speedup if every drafted token were accepted, at the best length.
        verify_s: Seconds of a pass by number of tokens, measured.
    """

    draft_tokens: Count
    speedup_ratio: float
    acceptance_ratio: float
    ceiling_ratio: float
    verify_s: dict[int, float]
    draft_s: float
    draft: str = ""

    @property
    def words(self) -> str:
        """The advice in one line."""
        if self.draft_tokens == 0:
            return (
                f"do not speculate: at acceptance {self.acceptance_ratio:.2f} no draft length pays "
                f"(if every token were accepted: {self.ceiling_ratio:.2f} x)"
            )
        return (
            f"draft {counted(self.draft_tokens, 'token')}: {self.speedup_ratio:.2f} x of plain decoding expected "
            f"at acceptance {self.acceptance_ratio:.2f}"
        )
