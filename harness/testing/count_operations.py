"""Count what a workload's operations interpret: bytecode instructions and calls of C functions, exactly.

    python -m harness.testing.count_operations NAME [--size SIZE] [--model FILE] [--data FOLDER]

The counts are those of ``Cost.python_ops_count`` and ``native_calls_count``. They hold for the size, the inputs and
the interpreter's version that they were taken with; they are no times and the same on every machine.
"""

import argparse
import os
import tempfile
from pathlib import Path

from harness.app.workloads import load, size_of
from harness.measure.interpreter import count
from harness.ports import WorkloadContext


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
        context = WorkloadContext(place, place, 1, 1, given.model, None, data)
        state = workload.prepare(size_of(workload, given.size), context)
        for operation in workload.operations(state):
            operation.call()
            found = sorted(count(operation.call) for _ in range(7))[3]
            per_call = operation.call_count
            print(
                f"{operation.name}: python_ops_count {found.python_ops_count / per_call:,.0f}, "
                f"native_calls_count {found.native_calls_count / per_call:,.0f}"
            )


if __name__ == "__main__":
    main()
