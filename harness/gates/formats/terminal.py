"""Plain text for a terminal or a log."""

from collections.abc import Sequence

from harness.gates import words
from harness.gates.judge import Judgement


def render(judgements: Sequence[Judgement]) -> str:
    """One block a budget: answer, limit, value, what could have been seen, reason and evidence."""
    blocks = []
    for j in judgements:
        lines = [
            f"{j.answer.upper():>13}  {words.title(j.budget)}",
            f"{'limit':>13}  {words.limit(j)}",
            f"{'value':>13}  {words.interval(j)}, {j.sample_count} sample(s)",
        ]
        if j.detectable_ratio is not None:
            lines.append(f"{'would see':>13}  a change of {words.detectable(j)} or more (power 80 %)")
        lines.append(f"{'because':>13}  {j.reason}")
        lines += [f"{'evidence':>13}  {e}" for e in j.evidence[:8]]
        if len(j.evidence) > 8:
            lines.append(f"{'':>13}  ... and {len(j.evidence) - 8} more")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"
