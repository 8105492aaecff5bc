"""What streaming experts was expected to give, beside what it gave."""

from pathlib import Path

from harness.catalog.gguf import read_gguf
from harness.domain.base import Frozen
from harness.predict.moe import DEFAULT_SKEW, Policy, hit_ratio, streamed_token_s
from harness.runtimes.llamacpp.expert_cache import CachePolicy
from harness.runtimes.llamacpp.expert_layout import ExpertPlan
from harness.runtimes.llamacpp.expert_streaming import ExpertUse
from harness.runtimes.llamacpp.stream_plan import StreamReport


class ExpertOutlook(Frozen, frozen=True, kw_only=True):
    """Predicted and measured, for passes of one token.

    Attributes:
        skew: Exponent of the Zipf law that choices were taken to follow: the file's own where it is synthetic, else
            what published hit ratios suggest.
        predicted_hit_ratio: Share of wanted experts in memory by that law, the room and the policy.
        hit_ratio: Measured.
        hindsight_hit_ratio: The same had the experts been held that were wanted most in this very run; what keeping a
            fixed set can give at best.
        predicted_read_bytes: Read for a token by the predicted hit ratio.
        read_bytes: Measured.
        predicted_token_s: Time of a token: those bytes at the probed speed of the storage, then the measured
            arithmetic, since a layer waits for what its router chose.
        token_s: Measured, first node to last block.
        stall_s: Of that, waiting.
        bound_s: Least time with the bytes that were read: max(arithmetic, bytes / storage bandwidth).
        reached_bytes_per_s: Bytes read over the time waited for them; some are read while the engine computes.
    """

    skew: float
    predicted_hit_ratio: float
    hit_ratio: float
    hindsight_hit_ratio: float
    predicted_read_bytes: float
    read_bytes: float
    predicted_token_s: float
    token_s: float
    stall_s: float
    bound_s: float
    reached_bytes_per_s: float


def expert_outlook(
    model: Path, plan: ExpertPlan, report: StreamReport, use: ExpertUse, policy: CachePolicy
) -> ExpertOutlook | None:
    """Set predictions beside what was measured; None when everything fitted or no pass had a single token."""
    if not plan.streams or not use.single_pass_count or not use.single_wanted_count:
        return None
    passes = use.single_pass_count
    skew = read_gguf(model).routing_skew
    assumed = DEFAULT_SKEW if skew is None else skew
    law: Policy = "lru" if policy == "lru" else "lfu"  # of independent choices the likeliest are the most wanted
    hit = hit_ratio(plan.expert_count, plan.cached_count, skew=assumed, policy=law, used_count=plan.used_count)
    token_s, stall_s = use.single_duration_s / passes, use.single_stall_s / passes
    read_bytes = use.single_read_bytes / passes
    disk = report.probe_bytes_per_s
    ranked = sorted((n for counts in use.counts for n in counts), reverse=True)
    kept = min(int(plan.cached_count * plan.layer_count), len(ranked))
    return ExpertOutlook(
        skew=assumed,
        predicted_hit_ratio=hit,
        hit_ratio=use.single_hit_count / use.single_wanted_count,
        hindsight_hit_ratio=sum(ranked[:kept]) / sum(ranked),
        predicted_read_bytes=plan.active_expert_bytes * (1 - hit),
        read_bytes=read_bytes,
        predicted_token_s=streamed_token_s(plan.active_expert_bytes, hit, disk, token_s - stall_s),
        token_s=token_s,
        stall_s=stall_s,
        bound_s=max(token_s - stall_s, read_bytes / disk),
        reached_bytes_per_s=read_bytes / stall_s if stall_s else 0.0,
    )
