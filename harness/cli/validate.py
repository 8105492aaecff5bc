"""``edge-harness validate``: the laws against published measurements."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from harness.cli._command import verb
from harness.cli._output import Answer, say, table
from harness.domain.option import Option

if TYPE_CHECKING:
    from harness.published.score import Report, Score


@verb
def validate(
    rows: Annotated[
        Path | None,
        Option(
            "--rows",
            "CSV file of speeds, with the columns of the shipped one.",
            default="the shipped speeds",
        ),
    ] = None,
) -> Answer:
    """Show how far the predictions are off published measurements, beside the best constant guess.

    Each chip x api x model x quantisation has one vote. The coefficients that ship were fitted on the rows
    that ship: judge them by a file that they never saw (--rows).

    Example: edge-harness validate --rows my-rows.csv
    """
    import msgspec

    from harness.app import validate as use

    result = use.validate(rows)
    return Answer(msgspec.to_builtins(result), lambda: render(result, is_taught=rows is None))


def _percent(ratio: float | None) -> str:
    if ratio is None:
        return "-"
    return f"{100 * ratio:.1f} %"


def _cells(name: str, score: "Score") -> list[str]:
    best = "-"
    if score.best_constant:
        best = f"{_percent(score.best_constant[1])} ({score.best_constant[0]:.2f})"
    counts = str(score.votes_count), str(score.rows_count)
    middle = [
        _percent(v) for v in (score.median_ratio, score.p90_ratio, score.within_ratio, score.coverage_ratio)
    ]
    widths = ["-" if v is None else f"{v:.2f}" for v in (score.width_ratio, score.interval_score)]
    return [name, *counts, *middle, *widths, best]


def render(result: "Report", *, is_taught: bool = False) -> None:
    """Print a report as tables.

    Args:
        result: Errors, group by group.
        is_taught: The law was fitted on these rows.
    """
    if is_taught:
        say(
            "The law was fitted on these rows, which flatters it. What it does on chips and sources that it never",
            "saw stands in docs/methodology.md; --rows FILE judges it by rows of your own.",
        )
    columns = ("", "votes", "rows", "median", "p90", "in 1.3", "in 90 %", "width", "score", "best constant")
    how = result.left_out or "shipped coefficients"
    rows = []
    if result.headline:
        rows.append(_cells("HEADLINE", result.headline))
    rows += [_cells(name, score) for name, score in result.groups.items()]
    say(table(f"Errors of {result.rows_count} rows ({how}); trust A and B unless said", columns, rows))
    for name, part in result.tables.items():
        if "," in name:
            title = f"Prompts by {name.partition(',')[0]}"
        else:
            title = f"Decode by {name}"
        say(table(f"{title}, trust A and B", columns, [_cells(n, s) for n, s in list(part.items())[:20]]))
    names = ("line", "chip", "model", "quant", "test", "api")
    said = ("measured", "predicted")
    misses = [[format(m[name], ".3g") if name in said else str(m[name]) for name in m] for m in result.worst]
    lost = ", ".join(f"{count} {reason}" for reason, count in result.unpredictable.items()) or "none"
    lines = [f"not predictable: {sum(result.unpredictable.values())} rows ({lost})"]
    if not result.rows_count:
        lines.append("the file has a header and no rows")
    say(table("Worst rows", (*names, *said), misses), *lines)
