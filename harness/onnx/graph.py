"""What an ONNX file says of itself: nodes, tensors and where they lie; weights are never read.

The file is mapped, and the package ``onnx`` parses what is left of it without the weights: at most 64 MiB. A
file of 2 GiB is more than protobuf allows: such a model keeps its weights in files beside it. Source: the
protocol buffers' encoding; onnx/onnx.proto (numbers of the fields).
"""

import mmap
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from harness.core.errors import BadDataError, optional
from harness.core.foreign import say
from harness.core.tables import shipped_table


def read_dtypes() -> Mapping[int, tuple[str, int]]:
    """``dtypes.toml``: short names and bits of types of tensors.

    Raises:
        BadDataError: A slip in the table.
    """
    return shipped_table(
        "dtypes.toml", "harness.onnx", into=dict[Literal["dtypes"], dict[int, tuple[str, int]]]
    )["dtypes"]


_DTYPES: Final = read_dtypes()
_MODEL_BYTES: Final = (1 << 31) - 1
_HEADER_BYTES: Final = 64 << 20
_LONG_BYTES: Final = 4096
_LENGTH_DELIMITED: Final = 2
_FIXED_BYTES: Final = {1: 8, 5: 4}
_MESSAGES: Final[Mapping[str, Mapping[int, str]]] = {
    "model": {7: "graph"},
    "graph": {1: "node", 5: "tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 11: "graph"},
}
"""Fields that hold messages with tensors in them, by number: what each of them holds."""
_WEIGHT_FIELDS: Final = frozenset({4, 5, 6, 7, 9, 10, 11})
"""Of a tensor: its values, as numbers, strings or bytes."""
_MAX_ITEMS: Final = 2_000_000
_MOST_DIMS: Final = 64


class Node(NamedTuple):
    """One operation; only integer attributes are kept."""

    op_type: str
    attributes: dict[str, int]


class GraphTensor(NamedTuple):
    """One stored tensor; ``location`` is the file beside the model that holds it, empty when the model file does."""

    name: str
    dtype: str
    dims: tuple[int, ...]
    size_bytes: int
    location: str = ""


class OnnxGraph(NamedTuple):
    """The header of one ONNX file.

    Nodes are those of inner graphs too; tensors are
    initializers and constants.
    """

    path: Path
    nodes: tuple[Node, ...]
    tensors: tuple[GraphTensor, ...]


def read_graph(path: Path) -> OnnxGraph:
    """Read the header of an ONNX file; BadDataError where there is none, or it is no ONNX model."""
    with optional("onnx", "onnx"):
        import onnx
        from google.protobuf.message import DecodeError
    try:
        size = path.stat().st_size
        if not 0 < size <= _MODEL_BYTES:
            raise BadDataError(
                path, "", "an empty file" if not size else f"{size} bytes", "an ONNX model below 2 GiB"
            )
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            model = onnx.ModelProto.FromString(bytes(_without_weights(view, 0, size, "model")))
    except OSError as error:
        raise BadDataError(path, "", f"unreadable ({error})", "an ONNX model") from error
    except (DecodeError, ValueError, IndexError, RecursionError) as error:
        raise BadDataError(path, "", f"no message ({error})", "an ONNX model (protobuf)") from error
    if not model.HasField("graph") or not model.graph.output:
        raise BadDataError(path, "graph", f"{len(model.graph.output)} outputs", "an ONNX model")
    graphs = list(_with_inner(model.graph))
    if sum(len(graph.node) + len(graph.initializer) for graph in graphs) > _MAX_ITEMS:
        raise BadDataError(path, "graph", "more nodes", "what a model can have")
    stored = []
    nodes = []
    for graph in graphs:
        stored += [_tensor(path, tensor, tensor.name) for tensor in graph.initializer]
        for node in graph.node:
            nodes.append(Node(node.op_type, {a.name: a.i for a in node.attribute if a.HasField("i")}))
            if node.op_type == "Constant":
                constants = [a.t for a in node.attribute if a.HasField("t")]
                stored += [_tensor(path, tensor, (*node.output, tensor.name)[0]) for tensor in constants]
    return OnnxGraph(
        path=path,
        nodes=tuple(nodes),
        tensors=tuple(stored),
    )


def _without_weights(view: mmap.mmap, at: int, end: int, kind: str) -> bytearray:
    """The bytes of a message without the weights of the tensors in it."""
    header = bytearray()
    while at < end:
        begin = at
        key, at = _varint(view, at)
        wire = key & 7
        if wire == _LENGTH_DELIMITED:
            length, at = _varint(view, at)
        elif wire == 0:
            length, (_, at) = 0, _varint(view, at)
        elif wire in _FIXED_BYTES:
            length = _FIXED_BYTES[wire]
        else:
            raise ValueError(f"a field of wire type {wire}")
        stop = at + length
        if stop > end:
            raise ValueError(f"a field up to byte {stop} of {end}")
        inner = _MESSAGES.get(kind, {}).get(key >> 3)
        if inner and length > _LONG_BYTES:
            body = _without_weights(view, at, stop, inner)
            kept = _as_varint(key) + _as_varint(len(body)) + body
        elif length <= _LONG_BYTES or kind != "tensor" or key >> 3 not in _WEIGHT_FIELDS:
            kept = view[begin : min(stop, begin + _HEADER_BYTES + 1)]
        else:
            kept = b""
        header += kept
        if len(header) > _HEADER_BYTES:
            raise ValueError(f"more than {_HEADER_BYTES} bytes beside the weights")
        at = stop
    return header


def _varint(view: mmap.mmap, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    value = shift = 0
    while shift < 64:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number of more than ten bytes")


def _as_varint(value: int) -> bytes:
    digits = bytearray()
    while value >= 0x80:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])


def _with_inner(graph: Any) -> Iterator[Any]:
    """A graph and those that its nodes hold."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            inner = [*attribute.graphs, attribute.g] if attribute.HasField("g") else attribute.graphs
            for one in inner:
                yield from _with_inner(one)


def _tensor(path: Path, tensor: Any, name: str) -> GraphTensor:
    dims = tuple(tensor.dims)
    dtype, bits = _dtype(tensor.data_type)
    size = -(-prod(dims[:_MOST_DIMS]) * bits // 8)
    if any(d < 0 for d in dims) or len(dims) > _MOST_DIMS or size >= 1 << 63:
        raise BadDataError(path, name, f"shape {list(dims[:9])}", "a few dimensions, none negative")
    external = {entry.key: entry.value for entry in tensor.external_data}
    location = external.get("location", "")
    if "\0" in location or any(len(part.encode()) > 255 for part in location.split("/")):
        raise BadDataError(path, name, f"location {say(location)}", "the name of a file")
    return GraphTensor(name, dtype, dims, size, location)


def _dtype(number: int) -> tuple[str, int]:
    return _DTYPES.get(number, (f"type {number}", 0))
