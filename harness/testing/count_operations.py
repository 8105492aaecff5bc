"""Count what a workload's operations interpret: bytecode instructions and calls of C functions, exactly.

    python -m harness.testing.count_operations NAME [--size SIZE] [--model FILE] [--data FOLDER]

The counts are those of ``Cost.python_ops_count`` and ``native_calls_count``. They hold for the size, the inputs and
the interpreter's version that they were taken with; they are no times and the same on every machine.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from harness.app.workloads import load, size_of
from harness.ports import WorkloadContext


class Counted(NamedTuple):
    """Instructions and calls of one run of something."""

    python_ops_count: int
    native_calls_count: int


def count(call: Callable[[], object]) -> Counted:
    """Run ``call`` once under the interpreter's own tracer."""
    instructions = 0
    calls = 0

    def trace(frame: Any, event: str, _argument: object) -> Any:
        nonlocal instructions
        if event == "call":
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        elif event == "opcode":
            instructions += 1
        return trace

    def profile(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "c_call"

    sys.settrace(trace)
    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
        sys.settrace(None)
    return Counted(instructions, max(calls - 1, 0))  # the last call is setprofile itself


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
