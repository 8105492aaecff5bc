"""Markdown for a pull request's comment: short, every name escaped."""

from collections.abc import Sequence
from typing import Final

from harness import __version__
from harness.domain.record import RunRecord
from harness.printable import clean
from harness.printable import escape_markdown as escape
from harness.report import words
from harness.report.state import State, figures_of

SIGNS: Final = {"ok": "✅", "inconclusive": "❔"}
_SHOWN: Final = ("decode", "prefill", "first token", "load", "peak memory")
_MEANING: Final = (
    "Predictions were made before the models ran. Each run is a process of its own: random tokens, one warm-up; "
    "samples during which the machine was disturbed are left out. Off = measured beside the likeliest value."
)


def render(records: Sequence[RunRecord]) -> str:
    """Runs, and their predictions beside their measurements."""
    lines = ["### edge-harness report", ""]
    runs = []
    agreed = []
    for record, setting in zip(records, words.setting_words(records), strict=True):
        figures = figures_of(record)
        name = ", ".join(
            part for part in (f"{words.model_words(record)} {clean(record.quant)}", setting) if part
        )
        shown = [figures[key].shown for key in _SHOWN if key in figures]
        detail = ""
        if record.detail:
            detail = f" ({clean(record.detail, 160)})"
        runs.append((name, *shown, f"{SIGNS.get(record.outcome, '❌')} {record.outcome}{detail}"))
        for figure in figures.values():
            if figure.predicted and figure.measured is not None:
                quantity = words.QUANTITIES.get(figure.name, figure.name)
                if figure.state is State.OUTSIDE:
                    word = f"**{figure.word}**"
                else:
                    word = escape(figure.word)
                between = f"{figure.between} {figure.unit_word}"
                agreed.append(
                    (escape(name), quantity, between, escape(figure.shown), escape(figure.off), word)
                )
    columns = ("run", *(words.QUANTITIES[name] for name in _SHOWN), "outcome")
    if runs:
        lines += _table(columns, [tuple(map(escape, row)) for row in runs])
    if agreed:
        head = ["<details><summary>Predicted and measured</summary>", "", _MEANING, ""]
        lines += [
            *head,
            *_table(("run", "quantity", "predicted, 90 %", "measured", "off", ""), agreed),
            "</details>",
            "",
        ]
    machines = sorted({words.machine_line(record) for record in records})
    engines = sorted({f"{r.engine.name} {r.engine.version}" for r in records if r.engine})
    said = [f"edge-harness {__version__}", *machines, *engines]
    lines.append(f"<sub>{escape('; '.join(clean(text, 200) for text in said))}</sub>")
    return "\n".join(lines).rstrip() + "\n"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [columns, ["---"] * len(columns), *rows]
    return [*(f"| {' | '.join(row)} |" for row in cells), ""]
