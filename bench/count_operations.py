"""Count what a workload's operations interpret, exactly, and the bytes of new pages that the system gives them.

    python -m bench.count_operations NAME [--size SIZE] [--model FILE] [--data FOLDER]

The counts are those of ``Cost.python_ops_count``. They hold for the size, the inputs and
the interpreter's version that they were taken with; they are no times and the same on every machine. New pages
(``Cost.fresh_bytes``) are page faults of a call; they depend on the allocator, and on Linux alone can be told.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from harness.app.workloads import load, size_of
from harness.catalog.paths import cache_dir
from harness.measure.interpreter import count
from harness.ports import WorkloadContext
from harness.runtimes.llamacpp import RUNTIME

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


def _new_page_bytes(call: Callable[[], object]) -> int:
    """Bytes of pages that came new while ``call`` ran; 0 where the system does not tell."""
    if resource is None:
        return 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    call()
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize()


def main() -> None:
    """Print the counts of each operation, the middle one of seven calls."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--size", default="default")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", type=Path, default=os.environ.get("EDGE_HARNESS_DATA"))
    given = parser.parse_args()
    workload = load(given.name)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        data = Path(given.data) if given.data else None
        context = WorkloadContext(place, cache_dir(), 1, 1, given.model, RUNTIME.open, data)
        state = workload.prepare(size_of(workload, given.size), context)
        for operation in workload.operations(state):
            operation.call()
            found = sorted(count(operation.call) for _ in range(7))[3]
            per_call = operation.call_count
            fresh = sorted(_new_page_bytes(operation.call) for _ in range(7))[3]
            print(
                f"{operation.name}: python_ops_count {found / per_call:,.0f}, new pages {fresh / per_call:,.0f} bytes"
            )


if __name__ == "__main__":
    main()
