"""Markdown for a pull request's comment; names from files are escaped."""

from collections.abc import Sequence

from harness.gates import words
from harness.gates.judge import Judgement
from harness.printable import escape_markdown as escape

SIGNS = {"pass": "✅ pass", "fail": "❌ fail", "inconclusive": "❔ inconclusive", "could not run": "💥 could not run"}


def render(judgements: Sequence[Judgement]) -> str:
    """A table of all budgets, and a line of reason for each one that did not pass."""
    lines = [
        "| budget | limit | value [interval] | samples | would have seen | answer |",
        "|---|---|---|---|---|---|",
    ]
    for j in judgements:
        cells = (
            words.title(j.budget),
            words.limit(j),
            words.interval(j),
            str(j.sample_count),
            words.detectable(j),
            SIGNS[j.answer],
        )
        lines.append("| " + " | ".join(escape(c) for c in cells) + " |")
    reasons = [f"- **{escape(words.title(j.budget))}**: {escape(j.reason)}" for j in judgements if j.answer != "pass"]
    return "\n".join([*lines, *(["", *reasons] if reasons else [])]) + "\n"
