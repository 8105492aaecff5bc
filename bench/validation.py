"""Errors of the speed model on rows that its fit did not see, as records for the pages.

python -m bench validation                      # every leave-out, and the other models on their rows; minutes
python -m bench validation --by source,chip
python -m bench validation --by given-1,other   # one measurement of each chip given; speculation, streaming, heat
python -m bench validation --by floor           # what two sources of one test differ by; seconds
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from harness.app import validate as use
from harness.measure.machine import cpu

FOLDER = Path(__file__).resolve().parents[1] / "reports" / "validation"
_LEFT_OUT = ("left_out", "rows_count", "unpredictable", "headline", "groups", "tables")


def _told(name: str) -> tuple[str, str, dict[str, Any]]:
    """Name of the record, the command that prints the same, and what it says."""
    kind, _, count = name.partition("-")
    if name == "other":
        others: dict[str, Any] = {
            "other_checks": use.other_checks(),
            "placement": use.placement_report(None, left_out=False),
        }
        return name, "validate", msgspec.to_builtins(others)
    if name == "floor":
        return name, "validate", {"floors": msgspec.to_builtins(use.validate().floors)}
    given = kind == "given"
    found = msgspec.to_builtins(use.validate(given=int(count)) if given else use.validate(by=name))
    stem, command = (
        (name, f"validate --given {count}") if given else (f"leave-out-{name}", f"validate --leave-out {name}")
    )
    return stem, command, {key: found[key] for key in _LEFT_OUT}


@click.command()
@click.option("--by", default="source,chip,family,runtime,time,given-1,given-2,given-3,other,floor", show_default=True)
def main(by: str) -> None:
    """Run the leave-outs and write what they say to ``reports/validation``."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in by.split(","):
        stem, command, told = _told(name)
        head = {
            "command": f"edge-harness {command}",
            "machine": cpu().model,
            "date": datetime.now(UTC).date().isoformat(),
        }
        (FOLDER / f"{stem}.json").write_text(json.dumps(head | told, indent=1) + "\n", encoding="utf-8")
        click.echo(f"wrote {stem}.json", err=True)


if __name__ == "__main__":
    main()
