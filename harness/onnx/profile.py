"""Where the time of a graph goes: the engine's own profile, summed by operation.

The engine writes the Chrome trace format: a list of events, those of category ``Node`` with the operation's name and
its duration in microseconds. Writing it costs time: a profile says shares, never speed.
"""

import json
from pathlib import Path
from typing import NamedTuple

from harness.errors import BadDataError


class OperationTime(NamedTuple):
    """Time of all nodes with one operation.

    Attributes:
        op_type: Operation.
        call_count: Kernels run.
        duration_s: Sum of their wall time.
        share_ratio: Of all nodes' time.
    """

    op_type: str
    call_count: int
    duration_s: float
    share_ratio: float


class NodeEvent(NamedTuple):
    """One run of one node: its name and operation, the provider that ran it, and how long."""

    node: str
    op_type: str
    provider: str
    duration_s: float


def node_events(path: Path) -> list[NodeEvent]:
    """Every kernel that ran, in order.

    Raises:
        BadDataError: It is no profile of ONNX Runtime.
    """
    found = []
    try:
        for event in json.loads(path.read_bytes()):
            # A node has events for its fences too; the kernel alone has its operation among its arguments.
            args = event.get("args", {})
            if event.get("cat") == "Node" and args.get("op_name") and event["name"].endswith("_kernel_time"):
                name = event["name"].removesuffix("_kernel_time")
                found.append(NodeEvent(name, args["op_name"], args.get("provider", ""), event["dur"] * 1e-6))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadDataError(path, "", str(error), "a profile written by ONNX Runtime") from error
    return found


def operation_times(path: Path) -> list[OperationTime]:
    """Time by operation, longest first.

    Raises:
        BadDataError: It is no profile of ONNX Runtime.
    """
    sums: dict[str, tuple[int, float]] = {}
    for event in node_events(path):
        count, spent = sums.get(event.op_type, (0, 0.0))
        sums[event.op_type] = count + 1, spent + event.duration_s
    total = sum(spent for _, spent in sums.values()) or 1.0
    found = [OperationTime(op, count, spent, spent / total) for op, (count, spent) in sums.items()]
    return sorted(found, key=lambda row: -row.duration_s)
