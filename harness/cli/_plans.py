"""Tables of what ``fit`` says of speculation, of streaming and of placements."""

from typing import TYPE_CHECKING

from harness.cli._output import Table, say, table
from harness.units import format_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.app.plans import SpeculationPlan
    from harness.app.ways import Way


def render_plans(ways: "Sequence[Way]", speculation: "SpeculationPlan | None") -> None:
    """Print ways where there are several, and the plans that there are."""
    if len(ways) > 1:
        say(_ways(ways))
    if speculation:
        source = "as measured on this machine" if speculation.measured else "as is usual of this api"
        costs = ", ".join(f"{c:.2f}" for c in speculation.verify_cost_ratio[:4])
        plain = speculation.plain_tokens_per_s
        rows = [
            (
                f"{c.acceptance_ratio:.2g}",
                str(c.gamma) if c.gamma else "no draft",
                f"{c.speedup:.2f}x" if c.gamma else "",
                format_number(plain * c.speedup),
            )
            for c in speculation.cases
        ]
        say(
            f"speculation with {speculation.drafter}: {format_number(plain)} tokens/s {speculation.plain} without "
            f"drafts; drafting a token takes {speculation.draft_cost_ratio:.2f} times as long as decoding one so, a "
            f"pass over 2, 3, 4, 5 tokens {costs} times, {source}",
            table("", ("acceptance", "draft length", "speedup", "tokens/s"), rows, right=(0, 1, 2, 3)),
        )


def _ways(ways: "Sequence[Way]") -> Table:
    rows = []
    for way in ways:
        decode = way.prediction.speed.decode_tokens_per_s
        between = f"{format_number(decode.low)} to {format_number(decode.high)}"
        rows.append((way.how, way.flags, format_number(decode.mid), between))
    return table("", ("ways to run it", "llama.cpp", "tokens/s", "90 %"), rows, right=(2,))
