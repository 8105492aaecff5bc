"""What share of the models that tables of published rows name is resolved, and what the others are.

    python -m bench.name_share FILE.csv... [--all]

Columns read: ``model`` (with ``params_b`` and ``active_params_b``), and ``target`` and ``draft`` of speculative rows,
where draft heads and methods stand beside models. Exit status 1 below 95 % of the ``model`` column.
"""

import csv
import sys
from collections import Counter
from pathlib import Path

import click

from harness.catalog.names import match
from harness.errors import InputError

LEAST_SHARE = 0.95


def names_in(paths: tuple[Path, ...]) -> dict[tuple[str, str], tuple[float, float]]:
    """(column, name): the largest parameters and active parameters (10**9) that a row gives with it."""
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for path in paths:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for row in csv.DictReader(file):
                sizes = (_number(row.get("params_b")), _number(row.get("active_params_b")))
                for column in ("model", "target", "draft"):
                    if name := row.get(column):
                        own = sizes if column == "model" else (0.0, 0.0)
                        before = found.get((column, name), (0.0, 0.0))
                        found[column, name] = (max(before[0], own[0]), max(before[1], own[1]))
    return found


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--all", "show_all", is_flag=True, help="Print every name, not only those that are no card.")
def main(paths: tuple[Path, ...], show_all: bool) -> None:
    """Print what each name was taken for, and the shares."""
    counts: dict[str, Counter[str]] = {}
    for (column, name), (params_b, active_b) in sorted(names_in(paths).items()):
        try:
            found = match(name, params_b=params_b, active_b=active_b)
            kind, text = ("card", found.card.name) if found.card else ("guess", found.why)
        except InputError as error:
            kind, text = "refused", str(error)
        counts.setdefault(column, Counter())[kind] += 1
        if show_all or kind != "card":
            click.echo(f"{kind:8} {column:7} {name}: {text}")
    for column, count in counts.items():
        total = count.total()
        click.echo(f"{column}: {1 - count['refused'] / total:.1%} of {total} names: {dict(count)}")
    model = counts.get("model", Counter())
    sys.exit(0 if model.total() and 1 - model["refused"] / model.total() >= LEAST_SHARE else 1)


if __name__ == "__main__":
    main()
