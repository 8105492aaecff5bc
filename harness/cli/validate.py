"""``edge-harness validate``: the model against published measurements."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli import _options as options
from harness.cli._command import Verb
from harness.cli._output import Answer, answers, console, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.published.other_rows import Check
    from harness.published.placement_rows import PlacementReport
    from harness.published.validation import Report, Score


@click.command("validate", cls=Verb)
@click.option(
    "--rows",
    type=click.Path(path_type=Path),
    help="A CSV file with the columns of the shipped rows: of speeds, batches, speculative decoding, streaming, "
    "split placements, energy or heat.",
)
@click.option(
    "--coefficients", type=click.Path(path_type=Path), help="Judge these, as --write-coefficients wrote them."
)
@click.option(
    "--leave-out",
    "by",
    type=click.Choice(["chip", "source", "family", "runtime", "time"]),
    help="Predict each of these by a fit that saw no row of it; time: the latest rows by a fit on those before.",
)
@click.option("--given", type=click.IntRange(1, 20), help="Give so many measurements of each chip, predict the rest.")
@options.seed("choosing the given measurements")
@click.option("--write-coefficients", type=options.FILE, help="Write the refitted coefficients here.")
@answers
def validate(
    rows: Path | None,
    coefficients: Path | None,
    by: str | None,
    given: int | None,
    seed: int,
    write_coefficients: Path | None,
) -> Answer:
    """Errors of the speed model on published measurements, beside constants.

    A file of anything but speeds of one sequence (told by its columns) is checked against the model of that.

    One vote for each chip x api x model x quant. Without --leave-out and --given the shipped coefficients answer,
    which were fitted on the shipped rows: judge them by a file that they never saw (--rows), or leave something out.
    """
    import msgspec

    from harness.app import validate as use

    placement = use.placement_report(rows, left_out=by == "chip")
    if rows is not None and placement is not None:
        found = placement
        if write_coefficients or coefficients or given or by not in {None, "chip"}:
            raise click.UsageError(f"{rows} has split placements: only --leave-out chip refits their terms")
        return Answer({"placement": found}, lambda: _render_placement(found))
    others = use.other_checks(rows)
    if rows is not None and others:
        if by or given or coefficients or write_coefficients:
            raise click.UsageError(f"{rows} has no rows of speeds: nothing of it is fitted, --rows stands alone")
        return Answer({"other_checks": others}, lambda: _render_others(others))
    if write_coefficients is not None:
        use.write_coefficients(rows, write_coefficients)
        coefficients = write_coefficients
    result = use.validate(rows, coefficients=coefficients, by=by, given=given, seed=seed)

    def show() -> None:
        _render(result)
        _render_others(others)
        if placement is not None:
            _render_placement(placement)

    return Answer({**msgspec.to_builtins(result), "other_checks": others, "placement": placement}, show)


def _render_placement(found: "PlacementReport") -> None:
    for phase, score in found.scores.items():
        click.echo(
            f"split placement, {phase}, {found.how}: median error {_percent(score.median_ratio)}, 90 % below "
            f"{_percent(score.p90_ratio)}, {score.rows_count} rows; over {score.votes_count} votes "
            f"{_percent(score.vote_median_ratio)} and {_percent(score.vote_p90_ratio)}"
        )
    if found.found_ratio is not None:
        click.echo(f"best placement found in {_percent(found.found_ratio)} of {found.sweeps_count} sweeps")
    lost = ", ".join(f"{count} {reason}" for reason, count in found.unpredictable.items()) or "none"
    click.echo(f"split placements that were not judged: {lost}")


def _render_others(checks: "Sequence[Check]") -> None:
    for check in checks:
        for reason, count in check.refused.items():
            click.echo(f"{check.name}: {count} rows refused, {reason}")
        if check.median_ratio is None or check.within_ratio is None:
            click.echo(f"{check.name}: no row has what is needed ({check.skipped_count} rows)")
            continue
        click.echo(
            f"{check.name}: median error {_percent(check.median_ratio)}, {_percent(check.within_ratio)} within "
            f"a factor 1.3, {check.rows_count} rows ({check.skipped_count} lack what is needed)"
        )


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.1f} %"


def _cells(name: str, score: "Score") -> list[str]:
    baselines = [f"{_percent(median)} ({100 * p90:.0f})" for median, p90 in score.baselines.values()] or ["-"] * 3
    best = f"{_percent(score.best_constant[1])} ({score.best_constant[0]:.2f})" if score.best_constant else "-"
    return [
        name,
        str(score.votes_count),
        str(score.rows_count),
        _percent(score.median_ratio),
        _percent(score.p90_ratio),
        _percent(score.coverage_ratio),
        f"{score.width_ratio:.2f}",
        *baselines,
        best,
    ]


def _render(result: "Report") -> None:
    columns = [
        "",
        "votes",
        "rows",
        "median",
        "p90",
        "in 90 %",
        "width",
        "bw/bytes (p90)",
        "0.55 (p90)",
        "0.72 (p90)",
        "best const",
    ]
    out, right = console(), range(1, 11)
    how = result.left_out or "shipped coefficients"
    rows = [_cells("HEADLINE", result.headline)] if result.headline else []
    rows += [_cells(name, score) for name, score in result.groups.items()]
    out.print(table(f"Errors of {result.rows_count} rows ({how}); trust A and B unless said", columns, rows, right))
    for name, part in result.tables.items():
        title = "Prompts by hardware, trust A and B" if "," in name else f"Decode by {name}, trust A and B"
        out.print(table(title, columns, [_cells(n, s) for n, s in list(part.items())[:20]], right))
    names = ("line", "chip", "api", "model", "quant", "test")
    misses = [
        [*(str(getattr(m, n)) for n in names), f"{m.measured_tokens_per_s:.1f}", f"{m.predicted_tokens_per_s:.1f}"]
        for m in result.worst
    ]
    out.print(table("Worst rows", (*names, "measured", "predicted"), misses, (0, 6, 7)))
    lost = ", ".join(f"{count} {reason}" for reason, count in result.unpredictable.items()) or "none"
    click.echo(f"not predictable: {sum(result.unpredictable.values())} rows ({lost})")
    if not result.rows_count:
        click.echo("the file has a header and no rows")
    elif result.headline is None:
        click.echo("no headline: no predictable dense row of trust A or B, llama.cpp class, short context")
    for name, floor in result.floors.items():
        click.echo(
            f"floor, {name}: two sources of the same test differ by {_percent(floor.median_ratio)} (median of "
            f"{floor.tests_count} tests), 90 % below {_percent(floor.p90_ratio)}"
        )
