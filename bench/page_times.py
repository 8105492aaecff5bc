"""How long a page of 1, 60 and 600 runs takes to make, and how large it is.

    python -m bench page_times          # writes reports/scale/pages.json

The runs are those of ``reports/check``, over and over with other names, an hour apart, on the machine that they were
made on.
"""

import resource
import subprocess
import sys
import time
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from msgspec.structs import replace

from bench._kept import REPORTS, keep
from bench.renderers import records_of
from harness.records.store import save

COUNTS: Final = (1, 60, 600)


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Make each page by the command, and keep the table."""
    measured = [record for record in records_of(REPORTS / "check" / "models.json") if record.outcome == "ok"]
    rows = []
    for count in COUNTS:
        with TemporaryDirectory() as name:
            folder, page = Path(name) / "results", Path(name) / "page.html"
            for n, record in enumerate(islice(cycle(measured), count)):
                created = f"2026-{1 + n // 672:02}-{1 + n // 24 % 28:02}T{n % 24:02}:00:00+00:00"
                save(replace(record, run_id=f"run-{n:04}", created=created), folder / f"run-{n:04}.json")
            began_s, began_cpu_s = time.perf_counter(), _cpu_s()
            command = [sys.executable, "-m", "harness", "report", str(folder), "-o", str(page)]
            subprocess.run(command, check=True, capture_output=True)
            seconds, cpu_seconds = time.perf_counter() - began_s, _cpu_s() - began_cpu_s
            rows.append((str(count), f"{seconds:.1f}", f"{cpu_seconds:.1f}", f"{page.stat().st_size / 1e6:.2f}"))
    keep("scale/pages.json", ("runs", "seconds", "seconds of CPU", "MB"), rows, "python -m bench page_times")


if __name__ == "__main__":
    main()
