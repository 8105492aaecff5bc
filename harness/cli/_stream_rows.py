"""What ``edge-harness stream`` says before it runs, and its rows of what was streamed."""

from typing import TYPE_CHECKING

from harness.units import format_bytes, format_number, format_rate

if TYPE_CHECKING:
    from harness.app.plans import StreamingOutlook
    from harness.domain.record import MemoryUse
    from harness.domain.result import Stream
    from harness.domain.streaming import ExpertOutlook, ExpertPlan, StreamPlan, StreamReport

Rows = list[tuple[str, str]]


def beforehand(outlook: "StreamingOutlook", mapped: bool, drafted: bool, schedule: str) -> tuple[float | None, str]:
    """Tokens a second that are expected, and one line that says so."""
    source = "predicted from this machine's profile"
    if mapped:
        naive = outlook.naive_tokens_per_s
        return naive, f"{source}: {format_number(naive)} tokens/s, all of it read again"
    if schedule != "blocks" and outlook.expert_cache_tokens_per_s:
        rate = outlook.expert_cache_tokens_per_s
        hits = f"{outlook.expert_hit_ratio:.0%} of the wanted experts in memory"
        return rate, f"{source}: {format_number(rate)} tokens/s with {hits}"
    if outlook.bound == "memory":
        return None, f"{source}: the budget is hardly enough, or too small, for what must stay in memory"
    rate = outlook.tokens_per_s
    told = f"{source}: {format_number(rate)} tokens/s, {format_bytes(outlook.streamed_bytes)} from storage a pass"
    if drafted and outlook.speculative_tokens_per_s:
        drafted_rate = outlook.speculative_tokens_per_s
        return drafted_rate, f"{told}; {format_number(drafted_rate)} with drafts at an acceptance of 0.8"
    return rate, told


def rows_of(result: "Stream", memory: "MemoryUse | None") -> Rows:
    """All rows of a run."""
    how = f"{result.mode}{f' by {result.schedule}' if result.schedule else ''}"
    rows = [
        ("how", how),
        ("speed", f"{format_number(result.decoding.tokens_per_s)} tokens/s"),
        ("budget", f"{format_bytes(result.budget_bytes)}{'' if result.enforced else ' (not enforced by the system)'}"),
    ]
    if memory is not None:
        rows.append(("peak charged", format_bytes(memory.cgroup_peak_bytes or memory.peak_rss_bytes)))
    if result.predicted_tokens_per_s:
        error = result.predicted_tokens_per_s / result.decoding.tokens_per_s - 1
        rows.insert(2, ("predicted", f"{format_number(result.predicted_tokens_per_s)} tokens/s ({error:+.0%})"))
    if result.schedule_reason:
        rows.append(("streams blocks, since", result.schedule_reason))
    if result.plan and result.report:
        rows += block_rows(result.plan, result.report, len(result.decoding.tokens))
    if result.expert_plan:
        rows += expert_rows(result.expert_plan, result.experts, result.report)
    if result.bound_ratio is not None:
        rows.append(("share of the bound", f"{result.bound_ratio:.2f}"))
    if result.draft:
        passes = ", ".join(f"{k}: {s * 1e3:.0f}" for k, s in result.verify_s.items())
        rows.append(("tokens per pass", f"{result.decoding.tokens_per_cycle:.2f}"))
        rows.append(("pass by tokens, drafted token", f"{passes} ms, {result.draft_s * 1e3:.1f} ms"))
    return rows


def block_rows(plan: "StreamPlan", report: "StreamReport", token_count: int) -> Rows:
    """Rows of a run that streamed blocks."""
    passes = max(report.pass_count, 1)
    pass_s, stall_s = report.duration_s / passes, report.stall_s / passes
    return [
        ("pinned", format_bytes(plan.pinned_bytes)),
        ("streamed in each pass", format_bytes(plan.streamed_bytes)),
        ("read per token", format_bytes(report.read_bytes / max(token_count, 1))),
        ("pass", f"{pass_s * 1e3:.0f} ms, of which waiting {stall_s * 1e3:.0f} ms"),
        (
            "storage",
            f"{format_rate(report.read_bytes / report.duration_s)} reached, "
            f"{format_rate(report.probe_bytes_per_s)} by the probe",
        ),
        ("computing and reading", f"{report.overlap_ratio:.2f} of the time is the longer of the two alone"),
    ]


def expert_rows(plan: "ExpertPlan", experts: "ExpertOutlook | None", report: "StreamReport | None") -> Rows:
    """Rows of a run that streamed experts."""
    rows = [
        ("pinned", format_bytes(plan.pinned_bytes)),
        (
            "experts",
            f"{format_bytes(plan.cache_bytes)} of {format_bytes(plan.expert_bytes)}; a token wants {plan.used_count} "
            f"of {plan.expert_count} in each of {plan.layer_count} layers",
        ),
        ("tokens of a pass at most", str(plan.batch_tokens)),
    ]
    if experts is None or report is None:
        return rows
    return [
        *rows,
        (
            "hits",
            f"{experts.hit_ratio:.1%}; predicted {experts.predicted_hit_ratio:.1%} at skew {experts.skew:.2f}; "
            f"the most wanted in hindsight {experts.hindsight_hit_ratio:.1%}",
        ),
        (
            "read per token",
            f"{format_bytes(experts.read_bytes)}; predicted {format_bytes(experts.predicted_read_bytes)}",
        ),
        (
            "token",
            f"{experts.token_s * 1e3:.0f} ms, of which waiting {experts.stall_s * 1e3:.0f} ms; predicted "
            f"{experts.predicted_token_s * 1e3:.0f} ms",
        ),
        (
            "storage",
            f"{format_rate(experts.reached_bytes_per_s)} while waiting, "
            f"{format_rate(report.probe_bytes_per_s)} by the probe",
        ),
    ]
