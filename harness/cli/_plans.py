"""Tables of what ``fit`` says of speculation, of streaming and of placements."""

from typing import TYPE_CHECKING, Final

from harness.cli._output import console, table
from harness.units import format_bytes, format_number, format_seconds

if TYPE_CHECKING:
    from harness.app.plans import SpeculationPlan, StreamingOutlook
    from harness.predict.placed import Choice, Choices

CURVE_ROWS: Final = 14
"""Most rows of the table; ``--json`` has every step."""


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
    rows = [
        (
            "pinned and streamed layers",
            format_number(plan.tokens_per_s),
            f"{plan.pinned_count} pinned; bound: {plan.bound}",
        ),
        ("the same file mapped", format_number(plan.naive_tokens_per_s), "all of it read again for every token"),
    ]
    if plan.speculative_tokens_per_s:
        rows.append(("streamed, with drafts", format_number(plan.speculative_tokens_per_s), "at an acceptance of 0.8"))
    if plan.expert_cache_tokens_per_s is not None and plan.expert_hit_ratio is not None:
        hits = f"{plan.expert_hit_ratio:.0%} of wanted experts in memory"
        rows.append(("most wanted experts kept", format_number(plan.expert_cache_tokens_per_s), hits))
    title = f"streaming in {format_bytes(plan.budget_bytes)}, {format_bytes(plan.streamed_bytes)} from storage a pass"
    return table(title, ("how", "tokens/s", ""), rows, right=(1,))


def render_placements(found: "Choices", names: tuple[str, str]) -> None:
    """The best split, the next best, and the curve between; ``names`` are the model's and the device's."""
    out = console()
    if found.best is None:
        out.print(f"{names[0]} on {names[1]}: no split fits; the host's memory does not hold the rest", style="bold")
    else:
        out.print(f"llama.cpp: {found.best.flags}", style="bold", markup=False)
    marks = {id(found.best): "best", id(found.next_best): "next best"}
    every = max(len(found.curve) // CURVE_ROWS, 1)
    rows = [
        _cells(choice, marks.get(id(choice), ""))
        for number, choice in enumerate(found.curve)
        if number % every == 0 or id(choice) in marks
    ]
    columns = ("flags", "", "card", "RAM", "fits", "tokens/s", "90 %", "prefill", "90 %", "request")
    title = f"{names[0]} on {names[1]}: {found.moved} from the GPU to the CPU, step by step"
    out.print(table(title, columns, rows, right=(2, 3, 5, 7, 9)))


def _cells(choice: "Choice", mark: str) -> tuple[str, ...]:
    decode, prefill = choice.decode_tokens_per_s, choice.prefill_tokens_per_s
    return (
        choice.flags,
        mark,
        format_bytes(choice.vram_bytes),
        format_bytes(choice.ram_bytes),
        "yes" if choice.fits else "no",
        format_number(decode.mid),
        f"{format_number(decode.low)} to {format_number(decode.high)}",
        format_number(prefill.mid),
        f"{format_number(prefill.low)} to {format_number(prefill.high)}",
        format_seconds(choice.request_s),
    )
