"""Errors of the speed model on rows that its fit did not see, as records for the pages.

python -m bench validation                      # every leave-out; minutes
python -m bench validation --by source,chip
"""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from harness.measure.machine import cpu

FOLDER = Path(__file__).resolve().parents[1] / "reports" / "validation"


@click.command()
@click.option("--by", default="source,chip,family,runtime,time", show_default=True)
def main(by: str) -> None:
    """Run the leave-outs and write what they say to ``reports/validation``."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in by.split(","):
        options = ["validate", "--leave-out", name]
        done = subprocess.run([sys.executable, "-m", "harness", *options, "--json"], stdout=subprocess.PIPE, check=True)
        told = json.loads(done.stdout)
        told = {key: told[key] for key in ("left_out", "rows_count", "headline", "groups", "tables", "floor_ratio")}
        head = {
            "command": f"edge-harness {' '.join(options)}",
            "machine": cpu().model,
            "date": datetime.now(UTC).date().isoformat(),
        }
        (FOLDER / f"leave-out-{name}.json").write_text(json.dumps(head | told, indent=1) + "\n", encoding="utf-8")
        click.echo(f"{name}: dense {told['groups']['dense']['median_ratio']:.1%}", err=True)


if __name__ == "__main__":
    main()
