"""Execution providers by name, and what really ran on them: an engine that falls back to the CPU says nothing.

A provider takes the nodes it can; compiled ones (OpenVINO, CoreML, QNN, TensorRT) turn each run of nodes into one.
What is left runs on the CPU. With the engine's own fusion off, the nodes that its profile shows on the CPU are those of
the file, and all others went to the provider.
"""

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from harness.errors import BadDataError, RefusedError, UnknownNameError
from harness.onnx.graph import read_graph
from harness.onnx.session import OnnxSession

PROVIDERS: Final = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
    "webgpu": "WebGpuExecutionProvider",
}
"""Source: ONNX Runtime, docs/execution-providers."""

_RUNS: Final = 3
"""Runs whose kernels are timed, after one that is not."""


class ProviderShare(NamedTuple):
    """What one provider did of a graph; the ratios are its shares of all nodes that ran, and of the kernels' time.

    The nodes are those of the file that it ran; of a compiled one, all that the CPU did not run.
    """

    provider: str
    node_count: int
    node_ratio: float
    time_ratio: float


class NodeEvent(NamedTuple):
    """One run of one node: its name and operation, the provider that ran it, and how long."""

    node: str
    op_type: str
    provider: str
    duration_s: float


def node_events(path: Path) -> list[NodeEvent]:
    """Every kernel that ran, in order, of a profile in the Chrome trace format (durations in microseconds).

    Writing a profile costs time: it says shares, never speed. BadDataError where it is no profile of ONNX Runtime.
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


def provider_named(name: str) -> str:
    """The engine's name of a provider: short (``openvino``) or its own; UnknownNameError where there is none."""
    if name in PROVIDERS.values():
        return name
    if name.lower() not in PROVIDERS:
        raise UnknownNameError("execution provider", name, PROVIDERS)
    return PROVIDERS[name.lower()]


def providers_for(api: str) -> tuple[str, ...]:
    """The provider of an api, and the CPU for what it leaves; an empty api is the CPU. Errors as above."""
    asked = provider_named(api or "cpu")
    return (asked,) if asked == PROVIDERS["cpu"] else (asked, PROVIDERS["cpu"])


def example_feeds(path: Path) -> dict[str, Any]:
    """Ones for all inputs of a graph, free sizes 1: enough to see where its nodes run, not how fast.

    RefusedError where an input is of a type that has no number 1.
    """
    import numpy as np

    kinds: dict[str, Any] = {"F32": np.float32, "F16": np.float16, "F64": np.float64, "I64": np.int64, "I32": np.int32}
    kinds |= {"I8": np.int8, "U8": np.uint8, "BOOL": np.bool_}
    feeds = {}
    for port in read_graph(path).inputs:
        if port.dtype not in kinds:
            raise RefusedError(f"{path.name}: input {port.name} is {port.dtype}; it needs real inputs")
        feeds[port.name] = np.ones([d if isinstance(d, int) and d > 0 else 1 for d in port.dims], kinds[port.dtype])
    return feeds


def provider_shares(
    path: Path,
    feeds: Mapping[str, Any],
    providers: Sequence[str],
    *,
    options: Mapping[str, Mapping[str, str]] | None = None,
) -> tuple[ProviderShare, ...]:
    """Shares of nodes and of time that really ran on each provider, asked ones first; one with none is listed with 0.

    Providers are named best first, and the CPU takes what is left. UnknownNameError where there is no such provider,
    RefusedError where this build has it not, EngineError where the engine would not load or run the graph.
    """
    asked = [provider_named(name) for name in providers]
    wanted = [*asked, *([] if PROVIDERS["cpu"] in asked else [PROVIDERS["cpu"]])]
    with tempfile.TemporaryDirectory(prefix="edge-harness-profile-") as folder:
        profile = Path(folder) / "profile"
        with OnnxSession(path, providers=wanted, provider_options=options, profile=profile) as session:
            for _ in range(_RUNS + 1):
                session.run(feeds)
            events = node_events(Path(session.raw.end_profiling()))
    each = len(events) // (_RUNS + 1)
    nodes: dict[str, set[str]] = {name: set() for name in wanted}
    for event in events:
        nodes.setdefault(event.provider, set()).add(event.node)
    spent: defaultdict[str, float] = defaultdict(float)
    for event in events[each:]:  # the first run has the provider's compilation in it
        spent[event.provider] += event.duration_s
    whole = sum(node.op_type != "Constant" for node in read_graph(path).nodes)
    on_cpu = len(nodes[PROVIDERS["cpu"]])
    others = [name for name in nodes if name != PROVIDERS["cpu"] and nodes[name]]
    compiled = max(whole - on_cpu - sum(len(nodes[name]) for name in others[1:]), 0) if others else 0
    total = sum(spent.values()) or 1.0
    counts = {name: len(mine) for name, mine in nodes.items()} | dict.fromkeys(others[:1], compiled)
    return tuple(
        ProviderShare(name, count, count / max(on_cpu + compiled, 1), spent[name] / total)
        for name, count in counts.items()
    )
