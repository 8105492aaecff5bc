"""``edge-harness validate``: the laws against published measurements."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from harness.cli.command import verb
from harness.core.option import Option
from harness.show.output import Output, say, table

if TYPE_CHECKING:
    from harness.speed.published.errors_of_rows import Report, VoteErrors


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
) -> Output:
    """Show how far the predictions are off published measurements, beside the best constant guess.

    Each chip x api x model x quantisation has one vote. The coefficients that ship were fitted on the rows
    that ship: judge them by a file that they never saw (--rows).

    Example: edge-harness validate --rows my-rows.csv
    """
    from harness.answer.nearest import model_of, shipped_rows
    from harness.speed.coefficients import shipped
    from harness.speed.published.errors_of_rows import judge_shipped, report
    from harness.speed.published.rows import read_rows

    judged = read_rows(rows, model_of) if rows else shipped_rows()
    result = report(judged, judge_shipped(judged, shipped()))
    return Output(result, lambda: render(result, is_taught=rows is None))


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{100 * ratio:.1f} %"


def _cells(name: str, score: "VoteErrors") -> list[object]:
    best = "-"
    if score.best_constant:
        best = f"{_percent(score.best_constant[1])} ({score.best_constant[0]:.2f})"
    shares = (score.median_ratio, score.p90_ratio, score.within_ratio, score.coverage_ratio)
    widths = ["-" if width is None else f"{width:.2f}" for width in (score.width_ratio, score.interval_score)]
    return [name, score.votes_count, score.rows_count, *map(_percent, shares), *widths, best]


def render(result: "Report", *, is_taught: bool = False) -> None:
    """Print the errors of all, and of each group; the law was fitted on rows that it was ``is_taught``."""
    if is_taught:
        say(
            "The law was fitted on these rows, which flatters it. What it does on chips and sources that it never",
            "saw stands in docs/methodology.md; --rows FILE judges it by rows of your own.",
        )
    columns = ("", "votes", "rows", "median", "p90", "in 1.3", "in 90 %", "width", "score", "best constant")
    how = result.left_out or "shipped coefficients"
    title = f"Errors of {result.rows_count} rows ({how}); trust A and B unless said"
    lost = ", ".join(f"{count} {reason}" for reason, count in result.unpredictable.items()) or "none"
    say(
        table(title, columns, [_cells(name, score) for name, score in result.groups.items()]),
        f"not predictable: {sum(result.unpredictable.values())} rows ({lost}); the worst rows: --json",
    )
    if not result.rows_count:
        say("the file has a header and no rows")
