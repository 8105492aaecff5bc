"""Errors of the speed model on rows that its fit did not see, as records for the pages.

python -m bench validation                      # every leave-out, and the other models on their rows; minutes
python -m bench validation --by source,chip
python -m bench validation --by given-1,other   # one measurement of each chip given; speculation, streaming, heat
"""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from harness.measure.machine import cpu

FOLDER = Path(__file__).resolve().parents[1] / "reports" / "validation"


_SPEED_KEYS = ("left_out", "rows_count", "headline", "groups", "tables", "floor_ratio")
_OTHER_KEYS = ("other_checks", "placement", "floor_ratio", "floor_pairs_count")


def _options(name: str) -> list[str]:
    if name == "other":
        return ["validate"]
    kind, _, count = name.partition("-")
    return ["validate", "--given", count] if kind == "given" else ["validate", "--leave-out", name]


@click.command()
@click.option("--by", default="source,chip,family,runtime,time,given-1,given-2,given-3,other", show_default=True)
def main(by: str) -> None:
    """Run the leave-outs and write what they say to ``reports/validation``."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in by.split(","):
        options = _options(name)
        done = subprocess.run([sys.executable, "-m", "harness", *options, "--json"], stdout=subprocess.PIPE, check=True)
        told = json.loads(done.stdout)
        told = {key: told[key] for key in (_OTHER_KEYS if name == "other" else _SPEED_KEYS)}
        head = {
            "command": f"edge-harness {' '.join(options)}",
            "machine": cpu().model,
            "date": datetime.now(UTC).date().isoformat(),
        }
        stem = name if options[1:2] != ["--leave-out"] else f"leave-out-{name}"
        (FOLDER / f"{stem}.json").write_text(json.dumps(head | told, indent=1) + "\n", encoding="utf-8")
        click.echo(f"wrote {stem}.json", err=True)


if __name__ == "__main__":
    main()
