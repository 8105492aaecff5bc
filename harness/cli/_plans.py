"""Tables of what ``fit`` says of speculation and of streaming."""

from typing import TYPE_CHECKING

from harness.cli._output import console, table

if TYPE_CHECKING:
    from harness.app.plans import SpeculationPlan, StreamingOutlook


def render_plans(speculation: "SpeculationPlan | None", streaming: "StreamingOutlook | None") -> None:
    """Print both, where there are any."""
    if streaming:
        console().print(_streaming(streaming))
    if speculation:
        console().print(_costs(speculation), markup=False)
        console().print(_speculation(speculation))


def _costs(plan: "SpeculationPlan") -> str:
    source = "as measured on this machine" if plan.measured else "as apis of this kind have it"
    costs = ", ".join(f"{c:.2f}" for c in plan.verify_cost_ratio[:4])
    return (
        f"speculation with {plan.drafter}: a drafted token costs {plan.draft_cost_ratio:.2f} of a decoded one; "
        f"a pass over 2, 3, 4, 5 tokens costs {costs}, {source}"
    )


def _speculation(plan: "SpeculationPlan") -> object:
    rows = [
        (f"{c.acceptance_ratio:.1f}", str(c.gamma) if c.gamma else "do not", f"{c.speedup:.2f}x" if c.gamma else "")
        for c in plan.cases
    ]
    return table("", ("acceptance", "draft length", "speedup"), rows, right=(0, 1, 2))


def _streaming(plan: "StreamingOutlook") -> object:
    from harness.units import format_bytes

    rows = [
        ("pinned and streamed layers", f"{plan.tokens_per_s:.3g}", f"{plan.pinned_count} pinned; bound: {plan.bound}"),
        ("the same file mapped", f"{plan.naive_tokens_per_s:.3g}", "all of it read again for every token"),
    ]
    if plan.speculative_tokens_per_s:
        rows.append(("streamed, with drafts", f"{plan.speculative_tokens_per_s:.3g}", "at an acceptance of 0.8"))
    if plan.expert_cache_tokens_per_s is not None and plan.expert_hit_ratio is not None:
        hits = f"{plan.expert_hit_ratio:.0%} of wanted experts in memory"
        rows.append(("most wanted experts kept", f"{plan.expert_cache_tokens_per_s:.3g}", hits))
    title = f"streaming in {format_bytes(plan.budget_bytes)}, {format_bytes(plan.streamed_bytes)} from storage a pass"
    return table(title, ("how", "tokens/s", ""), rows, right=(1,))
