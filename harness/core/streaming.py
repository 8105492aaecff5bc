"""What streaming weights from storage kept, read and waited for; what was expected of it."""

import mmap
from statistics import median, quantiles
from typing import Annotated, Final

from msgspec import Meta

from harness.core.base import Frozen
from harness.core.model import Count

PAGE_BYTES: Final = mmap.PAGESIZE
_LEAST_PASSES: Final = 8


class StreamPlan(Frozen):
    """What stays and what is read again in each pass.

    Attributes:
        slot_bytes: Of one piece that is streamed; 0 when everything fits.
        slot_count: Pieces in memory at a time.
        mapped_bytes: Left to the file mapping: the token table, of which a pass reads a few rows.
        available_bytes: What the weights may take.
        blocks: Number of the block of each streamed piece, in order.
        unit_bytes: What slots are multiples of and aligned to: huge pages, or small ones where blocks are too
            small.
    """

    slot_bytes: Count
    slot_count: Count
    pinned_bytes: Count
    streamed_bytes: Count
    mapped_bytes: Count
    available_bytes: Count
    blocks: tuple[int, ...] = ()
    unit_bytes: Count = PAGE_BYTES


class StreamReport(Frozen):
    """What streaming did since the last reset.

    The time of its passes is that of the engine, of waiting for storage, of moving pages, and what else the engine's
    callback takes.

    Attributes:
        duration_s: Time of its passes, and between those of one answer.
        stall_s: Time the engine waited for a block.
        probe_bytes_per_s: Storage bandwidth, mean of looks before, between and after the answers; 0 where
            nothing is streamed.
        engine_s: Time outside of the callback.
        answer_passes_s: Each pass after the prompt of its answer, in order.
        looks_bytes_per_s: Each look at the storage, in order.
    """

    pass_count: Count
    duration_s: float
    read_bytes: Count
    stall_s: float
    probe_bytes_per_s: Annotated[float, Meta(ge=0)]
    engine_s: float = 0.0
    move_s: float = 0.0
    callback_s: float = 0.0
    answer_passes_s: tuple[float, ...] = ()
    looks_bytes_per_s: tuple[float, ...] = ()

    @property
    def pass_s(self) -> float | None:
        """Median time of a pass after the prompt."""
        if self.answer_passes_s:
            return median(self.answer_passes_s)
        return None

    @property
    def pass_spread_s(self) -> tuple[float, ...]:
        """Times that a twentieth of these passes are below and above; empty for a few."""
        if len(self.answer_passes_s) < _LEAST_PASSES:
            return ()
        ends = quantiles(self.answer_passes_s, n=20)
        return ends[0], ends[-1]

    @property
    def parts_s(self) -> dict[str, float]:
        """Mean time of a pass, by what it goes to: these add up to all of it. Empty where no pass was seen."""
        if not self.pass_count:
            return {}
        parts = {
            "computing": self.engine_s,
            "waiting for storage": self.stall_s,
            "moving pages": self.move_s,
            "callback": self.callback_s,
        }
        return {name: part_s / self.pass_count for name, part_s in parts.items()}

    def bound_ratio(self, streamed_bytes: int, control_s: float) -> float | None:
        """Share of the best possible speed: max(control, streamed bytes / storage bandwidth) over a pass.

        ``control_s`` is the time of a pass with all weights in memory.
        """
        if not self.pass_s or not self.probe_bytes_per_s:
            return None
        return max(control_s, streamed_bytes / self.probe_bytes_per_s) / self.pass_s


class ExpertPlan(Frozen):
    """What stays and what comes when the router asks for it.

    Attributes:
        pinned_bytes: Weights that stay: all but routed experts and the token table.
        cache_bytes: Memory for experts; at least ``expert_bytes`` when all of them fit.
        batch_tokens: Most tokens of one pass: their experts of one layer must fit at once.
        mapped_bytes: Left to the file mapping: the token table, of which a pass reads a few rows.
    """

    pinned_bytes: Count
    expert_bytes: Count
    cache_bytes: Count
    layer_count: Count
    expert_count: Count
    used_count: Count
    batch_tokens: Count
    mapped_bytes: Count
    available_bytes: Count

    @property
    def streams(self) -> bool:
        """Whether experts are read while running."""
        return self.cache_bytes < self.expert_bytes

    @property
    def cached_count(self) -> float:
        """Experts of a layer that fit, on average."""
        return min(self.expert_count * self.cache_bytes / self.expert_bytes, float(self.expert_count))


class ExpertUse(Frozen):
    """What the router wanted since the last reset, and what of it was in memory.

    Attributes:
        wanted_count: Experts wanted, each once a pass and layer.
        single_pass_count: Passes of one token.
        counts: Passes of one token that wanted each expert: for each layer [expert_count].
        held_bytes: Experts in memory now.
    """

    wanted_count: Count
    hit_count: Count
    single_pass_count: Count
    single_wanted_count: Count
    single_hit_count: Count
    single_read_bytes: Count
    single_duration_s: float
    single_stall_s: float
    counts: tuple[tuple[int, ...], ...]
    held_bytes: Count

    @property
    def hit_ratio(self) -> float | None:
        """Share of wanted experts that were in memory.

        This and the next three are of passes over one token.
        """
        if self.single_wanted_count:
            return self.single_hit_count / self.single_wanted_count
        return None

    @property
    def token_s(self) -> float | None:
        """Time of a pass, first node to last block."""
        if self.single_pass_count:
            return self.single_duration_s / self.single_pass_count
        return None

    @property
    def stall_s(self) -> float | None:
        """Of that, waiting for the storage."""
        if self.single_pass_count:
            return self.single_stall_s / self.single_pass_count
        return None

    @property
    def reached_bytes_per_s(self) -> float | None:
        """Bytes read over the time waited for them; some are read while the engine computes."""
        if self.single_stall_s:
            return self.single_read_bytes / self.single_stall_s
        return None

    def bound_ratio(self, storage_bytes_per_s: float) -> float | None:
        """Least time by arithmetic and by the bytes read, over the time taken.

        It is None for a run that read nothing from storage.
        """
        if not self.single_read_bytes or not storage_bytes_per_s:
            return None
        computing_s = self.single_duration_s - self.single_stall_s
        return max(computing_s, self.single_read_bytes / storage_bytes_per_s) / self.single_duration_s
