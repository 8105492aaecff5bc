"""Errors of the speed model on rows that its fit did not see, as records for the pages.

python -m bench validation                      # every leave-out, and the other models on their rows; minutes
python -m bench validation --by source,chip
python -m bench validation --by given-1,other   # one measurement of each chip given; speculation, streaming, heat
python -m bench validation --by floor           # what two sources of one test differ by; seconds
"""

from typing import Any

import click
import msgspec

from bench._kept import REPORTS, write
from harness.app import validate as use

_LEFT_OUT = ("left_out", "rows_count", "unpredictable", "headline", "groups", "tables")


def _told(name: str) -> tuple[str, str, dict[str, Any]]:
    """Name of the record, the command that prints the same, and what it says."""
    if name == "other":
        others: dict[str, Any] = {
            "other_checks": use.other_checks(),
            "placement": use.placement_report(None, left_out=False),
        }
        return name, "validate", msgspec.to_builtins(others)
    if name == "floor":
        return name, "validate", {"floors": msgspec.to_builtins(use.validate().floors)}
    kind, _, count = name.partition("-")
    if kind == "given":
        stem, command, report = name, f"validate --given {count}", use.validate(given=int(count))
    else:
        stem, command, report = f"leave-out-{name}", f"validate --leave-out {name}", use.validate(by=name)
    found = msgspec.to_builtins(report)
    return stem, command, {key: found[key] for key in _LEFT_OUT}


@click.command()
@click.option("--by", default="source,chip,family,runtime,time,given-1,given-2,given-3,other,floor", show_default=True)
def main(by: str) -> None:
    """Run the leave-outs and write what they say to ``reports/validation``."""
    for name in by.split(","):
        stem, command, told = _told(name)
        write(REPORTS / "validation" / f"{stem}.json", f"edge-harness {command}", told)
        click.echo(f"wrote {stem}.json", err=True)


if __name__ == "__main__":
    main()
