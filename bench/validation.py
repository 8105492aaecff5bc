"""Errors of the laws on rows that their fit did not see, as records for the pages; and the fit that ships.

python -m bench validation                        # every leave-out, and the other models on their rows; minutes
python -m bench validation --by chip+source,source
python -m bench validation --by given-1,other     # one measurement of each chip given; speculation, streaming, heat
python -m bench validation --by floor             # what two sources of one test differ by; seconds
python -m bench validation --write FOLDER         # coefficients.json and heat_coefficients.json, fitted on all rows
"""

from functools import cache
from pathlib import Path
from typing import Any

import click
import msgspec

from bench._kept import REPORTS, write
from bench.fits import heat, placement
from bench.fits.blind import blind_constants, other_sources
from bench.fits.leave_out import GROUPS, Whole, fit_all, fitted, leave_out, leave_out_given
from bench.rows.files import kind_of
from bench.rows.heat import heat_rows
from bench.rows.others import batch_rows, speculation_rows, streaming_rows
from bench.rows.placements import placed_rows
from harness.answer.nearest import model_of, shipped_rows
from harness.cli.validate import render
from harness.core.errors import InputError
from harness.speed.coefficients import shipped
from harness.speed.published.errors_of_rows import Report, judge_shipped, report
from harness.speed.published.rows import read_rows

SOURCE = "harness/published/data, by: python -m bench validation --write FOLDER"
_KEPT = ("left_out", "rows_count", "unpredictable", "groups", "tables")
BY = (*GROUPS, "chip+source", "time")


@cache
def _whole() -> Whole:
    return fitted(shipped_rows())


def left_out(by: str) -> Report:
    """Every shipped speed by a fit that saw nothing of its kind.

    Raises:
        InputError: ``by`` is none of what can be left out.
    """
    if by not in BY:
        raise InputError(f"cannot leave out {by!r}: it is one of {', '.join(BY)}")
    whole = _whole()
    how = "the latest rows left out of the fit" if by == "time" else f"each {by} left out of the fit"
    return report(shipped_rows(), leave_out(whole, by), left_out=how)


def _given(count: int) -> Report:
    how = f"{count} random measurements of each chip given (seed 0), the rest of it left out of the fit"
    return report(shipped_rows(), leave_out_given(_whole(), count), left_out=how)


def _others() -> Report:
    """Rows of other kinds: heat by fits without their device, placements by fits without their card."""
    rows = [*speculation_rows(), *streaming_rows(None, model_of), *batch_rows(None, model_of)]
    judged = [*judge_shipped(rows, shipped()), *heat.left_out(), *placement.left_out(model_of)]
    return report(
        [*rows, *(j.row for j in judged)], judged, left_out="devices and cards left out where terms are fitted"
    )


def _floor() -> Report:
    return report(shipped_rows(), other_sources(shipped_rows()), left_out="predicted by other sources of the same test")


def of_file(path: Path) -> Report:
    """A file of any kind of rows, by what ships."""
    kind = kind_of(path)
    if kind == "speed":
        rows = read_rows(path, model_of)
    elif kind == "placement":
        rows = [row for row, _ in placed_rows(path, model_of)]
    elif kind == "speculation":
        rows = speculation_rows(path)
    elif kind == "streaming":
        rows = streaming_rows(path, model_of)
    elif kind == "batch":
        rows = batch_rows(path, model_of)
    elif kind == "energy":
        rows = [row for row, _ in heat_rows("energy", model_of, path)]
    else:
        rows = [row for row, _ in heat_rows("thermal", model_of, path)]
    return report(rows, judge_shipped(rows, shipped()))


_OWN = {"other": _others, "floor": _floor}


def _record(name: str) -> tuple[str, Any]:
    """Name of the record, and what it says."""
    kind, _, count = name.partition("-")
    found = _OWN[name]() if name in _OWN else _given(int(count)) if kind == "given" else left_out(name)
    document = msgspec.to_builtins(found)
    stem = name if name in _OWN or kind == "given" else f"leave-out-{name}"
    blind = {"blind_constants": blind_constants(shipped_rows())} if name == "chip+source" else {}
    return stem, {key: document[key] for key in _KEPT} | blind


@click.command()
@click.option("--by", default=f"{','.join(BY)},given-1,given-2,given-3,other,floor", show_default=True)
@click.option("--write", "path", type=click.Path(path_type=Path, file_okay=False), help="Fit on all rows, and write.")
@click.option("--rows", type=click.Path(path_type=Path, dir_okay=False), help="Judge this file by what ships.")
def main(by: str, path: Path | None, rows: Path | None) -> None:
    """Run the leave-outs and write what they say to ``reports/validation``."""
    if rows is not None:
        render(of_file(rows))
        return
    if path is not None:
        fits = {
            "coefficients.json": fit_all(_whole(), SOURCE),
            "heat_coefficients.json": {"source": SOURCE, "terms": heat.fit(heat.shipped())},
        }
        for name, fit in fits.items():
            (path / name).write_bytes(msgspec.json.format(msgspec.json.encode(fit, enc_hook=float), indent=1) + b"\n")
        return
    for name in by.split(","):
        stem, said = _record(name)
        write(
            REPORTS / "validation" / f"{stem}.json",
            f"python -m bench validation --by {name}",
            msgspec.to_builtins(said),
        )
        click.echo(f"wrote {stem}.json", err=True)


if __name__ == "__main__":
    main()
