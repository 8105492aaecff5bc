"""Where the time of a graph goes: the engine's own profile, node by node.

The engine writes the Chrome trace format: a list of events, those of category ``Node`` with the operation's name and
its duration in microseconds. Writing it costs time: a profile says shares, never speed.
"""

import json
from pathlib import Path
from typing import NamedTuple

from harness.errors import BadDataError


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
