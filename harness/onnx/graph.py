"""What an ONNX file says of itself: ports, nodes, tensors and where they lie; weights are never read.

Counts, depths and sizes are bounded, so that a hostile file costs no more than its size. The package ``onnx``
parses it. A file of 2 GiB is more than protobuf allows: such a model keeps its weights in files beside it.
"""

from collections import Counter
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, Final, NamedTuple

from harness.domain.base import shipped_table
from harness.domain.foreign import say
from harness.errors import BadDataError, optional

_DTYPES: Final[Mapping[int, tuple[str, int]]] = {
    int(number): (name, bits) for number, (name, bits) in shipped_table("dtypes.toml", "harness.onnx")["dtypes"].items()
}
_MODEL_BYTES: Final = (1 << 31) - 1
_MAX_DEPTH: Final = 16
_MAX_ITEMS: Final = 2_000_000
_MOST_DIMS: Final = 64


class Port(NamedTuple):
    """An input or output: its shape has names where it is free."""

    name: str
    dtype: str
    dims: tuple[int | str, ...]


class Node(NamedTuple):
    """One operation; only integer attributes are kept."""

    op_type: str
    domain: str
    inputs: tuple[str, ...]
    attributes: dict[str, int]


class GraphTensor(NamedTuple):
    """One stored tensor; ``location`` is the file beside the model that holds it, empty when the model file does."""

    name: str
    dtype: str
    dims: tuple[int, ...]
    size_bytes: int
    location: str = ""
    offset_bytes: int = 0


class OnnxGraph(NamedTuple):
    """The header of one ONNX file.

    Inputs are without those that are only default values; nodes are those of inner graphs too; tensors are initializers
    and constants; ``file_bytes`` is the size of the model file alone.
    """

    path: Path
    producer: str
    opsets: dict[str, int]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    nodes: tuple[Node, ...]
    tensors: tuple[GraphTensor, ...]
    file_bytes: int

    @property
    def op_counts(self) -> Counter[str]:
        """How often each operation occurs."""
        return Counter(node.op_type for node in self.nodes)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all stored tensors."""
        return sum(t.size_bytes for t in self.tensors)

    @property
    def inline_bytes(self) -> int:
        """Bytes of the tensors that stand in the model file itself."""
        return sum(t.size_bytes for t in self.tensors if not t.location)


def read_graph(path: Path) -> OnnxGraph:
    """Read the header of an ONNX file; BadDataError where there is none, or it is no ONNX model."""
    with optional("onnx", "onnx"):
        import onnx
        from google.protobuf.message import DecodeError
    try:
        size = path.stat().st_size
        if not 0 < size <= _MODEL_BYTES:
            raise BadDataError(path, "", "an empty file" if not size else f"{size} bytes", "an ONNX model below 2 GiB")
        model = onnx.ModelProto.FromString(path.read_bytes())
    except OSError as error:
        raise BadDataError(path, "", f"unreadable ({error})", "an ONNX model") from error
    except (DecodeError, ValueError) as error:
        raise BadDataError(path, "", f"no message ({error})", "an ONNX model (protobuf)") from error
    graph, walk = model.graph, _Walk(path)
    if not model.HasField("graph") or not graph.output:
        raise BadDataError(path, "graph", f"{len(graph.output)} outputs", "an ONNX model")
    walk.graph(graph)
    stored = {t.name for t in walk.tensors}
    return OnnxGraph(
        path=path,
        producer=model.producer_name,
        opsets={o.domain: o.version for o in model.opset_import},
        inputs=tuple(_port(p) for p in graph.input if p.name not in stored),
        outputs=tuple(map(_port, graph.output)),
        nodes=tuple(walk.nodes),
        tensors=tuple(walk.tensors),
        file_bytes=size,
    )


class _Walk:
    """Nodes and tensors of a graph and of those inside it."""

    def __init__(self, path: Path) -> None:
        self._path, self._depth = path, 0
        self.nodes: list[Node] = []
        self.tensors: list[GraphTensor] = []

    def graph(self, graph: Any) -> None:
        """All of one graph; BadDataError where no model is so deep or so large."""
        if self._depth > _MAX_DEPTH or len(self.nodes) + len(graph.node) + len(graph.initializer) > _MAX_ITEMS:
            raise BadDataError(self._path, "graph", "more nodes or deeper graphs", "what a model can have")
        self._depth += 1
        self.tensors += [self._tensor(tensor, tensor.name) for tensor in graph.initializer]
        for node in graph.node:
            self.nodes.append(
                Node(
                    op_type=node.op_type,
                    domain=node.domain,
                    inputs=tuple(node.input),
                    attributes={a.name: a.i for a in node.attribute if a.HasField("i")},
                )
            )
            for attribute in node.attribute:
                if attribute.HasField("t") and node.op_type == "Constant":
                    self.tensors.append(self._tensor(attribute.t, (*node.output, attribute.t.name)[0]))
                for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                    self.graph(inner)
        self._depth -= 1

    def _tensor(self, tensor: Any, name: str) -> GraphTensor:
        dims = tuple(tensor.dims)
        dtype, bits = _dtype(tensor.data_type)
        size = -(-prod(dims[:_MOST_DIMS]) * bits // 8)
        if any(d < 0 for d in dims) or len(dims) > _MOST_DIMS or size >= 1 << 63:
            raise BadDataError(self._path, name, f"shape {list(dims[:9])}", "a few dimensions, none negative")
        external = {entry.key: entry.value for entry in tensor.external_data}
        offset, location = external.get("offset", "0"), external.get("location", "")
        if not offset.isdecimal() or len(offset) > 18:
            raise BadDataError(self._path, name, f"offset {say(offset)}", "a number of bytes")
        if "\0" in location or any(len(part.encode()) > 255 for part in location.split("/")):
            raise BadDataError(self._path, name, f"location {say(location)}", "the name of a file")
        return GraphTensor(name, dtype, dims, size, location, int(offset))


def _dtype(number: int) -> tuple[str, int]:
    return _DTYPES.get(number, (f"type {number}", 0))


def _port(port: Any) -> Port:
    tensor = port.type.tensor_type
    dims = [d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim]
    return Port(port.name, _dtype(tensor.elem_type)[0], tuple(dims))
