"""Rows that people shared (`edge-harness learn --share RUN`): checked against the law, and added to the shipped ones.

    python -m bench merge rows.csv            # what they say, and what contradicts
    python -m bench merge rows.csv --write    # add those that do not

Rows that lie further from the law than three of its spreads are named and not added; `python -m bench fits` fits anew.
"""

import csv
import math
import sys
from pathlib import Path
from typing import Final

import click

from harness.answer.nearest import model_of
from harness.speed.coefficients import shipped
from harness.speed.published.cells import speed_columns
from harness.speed.published.rows import PublishedRow, read_rows

SHIPPED: Final = Path(__file__).resolve().parents[1] / "harness" / "published" / "data" / "decode.csv"
MOST_SPREADS: Final = 3.0
"""One honest measurement in 370 is further off."""


def beside_the_law(row: PublishedRow) -> tuple[float, float]:
    """What the law expects of a row, tokens/s, and how many of its spreads the row lies above that."""
    belief = shipped()
    ln_s, slopes = row.predicted(belief.values)
    off = (ln_s - row.ln_s) / belief.spread(slopes, row.phase, row.machine)
    return row.token_count / math.exp(ln_s), off


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--write", is_flag=True, help="Add the rows that do not contradict.")
def main(files: tuple[Path, ...], write: bool) -> None:
    """Print each row beside the law; exit 1 where one contradicts or cannot be read as a model on a chip."""
    kept = list[PublishedRow]()
    refused = 0
    for file in files:
        for row in read_rows(file, model_of):
            named = " ".join(row.raw[name] for name in ("chip", "model", "quant", "test"))
            what = f"{named}: {row.measured:g} tokens/s"
            if row.work is None:
                refused += 1
                click.echo(f"not used: {what}: {row.reason}")
                continue
            expected, off = beside_the_law(row)
            if abs(off) > MOST_SPREADS:
                refused += 1
                click.echo(f"contradicts: {what}; {expected:.3g} was expected, {abs(off):.1f} spreads away")
                continue
            kept.append(row)
            click.echo(f"agrees: {what} ({off:+.1f} spreads)")
    if write and kept:
        with SHIPPED.open("a", encoding="utf-8", newline="") as shipped_file:
            writer = csv.DictWriter(shipped_file, speed_columns(), lineterminator="\n", extrasaction="ignore")
            writer.writerows({name: row.raw.get(name, "") for name in speed_columns()} for row in kept)
    click.echo(f"{len(kept)} agree, {refused} do not{'; added' if write and kept else ''}")
    sys.exit(1 if refused else 0)


if __name__ == "__main__":
    main()
