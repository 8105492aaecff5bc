"""What an ONNX file says of itself: ports, nodes, tensors and where they lie; weights are never read.

Field numbers are those of onnx/onnx.proto (ModelProto, GraphProto, NodeProto, TensorProto, ValueInfoProto). Counts and
depths are bounded, so that a hostile file costs no more than its size.
"""

import mmap
from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Final, NamedTuple

from harness.errors import BadDataError
from harness.onnx._wire import Field, Wire, signed

DTYPES: Final[Mapping[int, tuple[str, int]]] = {
    1: ("F32", 32), 2: ("U8", 8), 3: ("I8", 8), 4: ("U16", 16), 5: ("I16", 16), 6: ("I32", 32), 7: ("I64", 64),
    8: ("TEXT", 0), 9: ("BOOL", 8), 10: ("F16", 16), 11: ("F64", 64), 12: ("U32", 32), 13: ("U64", 64),
    16: ("BF16", 16), 17: ("F8E4M3", 8), 18: ("F8E4M3", 8), 19: ("F8E5M2", 8), 20: ("F8E5M2", 8),
    21: ("U4", 4), 22: ("I4", 4), 23: ("F4", 4),
}  # fmt: skip
"""TensorProto.DataType: short name and bits."""

_MAX_DEPTH: Final = 16
_MAX_ITEMS: Final = 2_000_000


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
    """Read the header of an ONNX file.

    Raises:
        BadDataError: There is no such file, or it is no ONNX model.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else None
    except (OSError, ValueError) as error:
        raise BadDataError(path, "", f"unreadable ({error})", "an ONNX model") from error
    if mapped is None:
        raise BadDataError(path, "", "an empty file", "an ONNX model")
    with mapped, memoryview(mapped) as data:
        return _Reader(Wire(data, path), path).model(size)


class _Reader:
    def __init__(self, wire: Wire, path: Path) -> None:
        self.wire, self.path = wire, path
        self.nodes: list[Node] = []
        self.tensors: list[GraphTensor] = []
        self.inputs: list[Port] = []
        self.outputs: list[Port] = []

    def model(self, size: int) -> OnnxGraph:
        opsets: dict[str, int] = {}
        producer, graphs = "", 0
        for number, start, end, kind in self.wire.fields(0, size):
            if number == 2 and kind == 2:
                producer = self.wire.text(start, end)
            elif number == 7 and kind == 2:
                graphs += 1
                self._graph(start, end, 0)
            elif number == 8 and kind == 2:
                domain, version = "", 0
                for inner in self.wire.fields(start, end):
                    if inner[0] == 1 and inner[3] == 2:
                        domain = self.wire.text(inner[1], inner[2])
                    elif inner[0] == 2:
                        version = inner[1]
                opsets[domain] = version
        if graphs != 1 or not self.outputs:
            raise BadDataError(self.path, "graph", f"{graphs} graphs, {len(self.outputs)} outputs", "an ONNX model")
        stored = {t.name for t in self.tensors}
        ports = tuple(p for p in self.inputs if p.name not in stored)
        return OnnxGraph(
            self.path, producer, opsets, ports, tuple(self.outputs), tuple(self.nodes), tuple(self.tensors), size
        )

    def _graph(self, start: int, end: int, depth: int) -> None:
        if depth > _MAX_DEPTH or len(self.nodes) + len(self.tensors) > _MAX_ITEMS:
            raise BadDataError(self.path, "graph", "more nodes or deeper graphs", "what a model can have")
        for number, at, to, kind in self.wire.fields(start, end):
            if kind != 2:
                continue
            if number == 1:
                self._node(at, to, depth)
            elif number == 5:
                self.tensors.append(self._tensor(at, to))
            elif number in {11, 12} and depth == 0:
                (self.inputs if number == 11 else self.outputs).append(self._port(at, to))

    def _node(self, start: int, end: int, depth: int) -> None:
        op_type = domain = ""
        inputs: list[str] = []
        outputs: list[str] = []
        attributes: dict[str, int] = {}
        constants: list[GraphTensor] = []
        for number, at, to, kind in self.wire.fields(start, end):
            if kind != 2:
                continue
            if number == 1:
                inputs.append(self.wire.text(at, to))
            elif number == 2:
                outputs.append(self.wire.text(at, to))
            elif number == 4:
                op_type = self.wire.text(at, to)
            elif number == 7:
                domain = self.wire.text(at, to)
            elif number == 5:
                self._attribute(at, to, depth, attributes, constants)
        if op_type == "Constant":
            self.tensors += [t._replace(name=outputs[0] if outputs else t.name) for t in constants]
        self.nodes.append(Node(op_type, domain, tuple(inputs), attributes))

    def _attribute(
        self, start: int, end: int, depth: int, attributes: dict[str, int], constants: list[GraphTensor]
    ) -> None:
        name = ""
        for number, at, to, kind in self.wire.fields(start, end):
            if number == 1 and kind == 2:
                name = self.wire.text(at, to)
            elif number == 3 and kind == 0:
                attributes[name] = signed(at)
            elif number == 5 and kind == 2:
                constants.append(self._tensor(at, to))
            elif number in {6, 11} and kind == 2:
                self._graph(at, to, depth + 1)

    def _tensor(self, start: int, end: int) -> GraphTensor:
        dims: list[int] = []
        entries: dict[str, str] = {}
        type_id, name = 0, ""
        for field in self.wire.fields(start, end):
            number, at, to, kind = field
            if number == 1:
                dims += self.wire.integers(field)
            elif number == 2 and kind == 0:
                type_id = at
            elif number == 8 and kind == 2:
                name = self.wire.text(at, to)
            elif number == 13 and kind == 2:
                entries |= [self._entry(at, to)]
        dtype, bits = DTYPES.get(type_id, (f"type {type_id}", 0))
        if any(d < 0 for d in dims):
            raise BadDataError(self.path, name, f"shape {dims}", "no negative dimension")
        size = -(-prod(dims) * bits // 8)
        offset = entries.get("offset", "0")
        if not offset.isdecimal():
            raise BadDataError(self.path, name, f"offset {offset!r}", "a number of bytes")
        return GraphTensor(name, dtype, tuple(dims), size, entries.get("location", ""), int(offset))

    def _entry(self, start: int, end: int) -> tuple[str, str]:
        key = value = ""
        for number, at, to, kind in self.wire.fields(start, end):
            if kind == 2:
                key, value = (self.wire.text(at, to), value) if number == 1 else (key, self.wire.text(at, to))
        return key, value

    def _port(self, start: int, end: int) -> Port:
        name, type_id = "", 0
        dims: list[int | str] = []
        for number, at, to, kind in self.wire.fields(start, end):
            if number == 1 and kind == 2:
                name = self.wire.text(at, to)
            elif number == 2 and kind == 2:
                for tensor in self._inner(at, to, 1):
                    for field in self.wire.fields(tensor[1], tensor[2]):
                        if field[0] == 1 and field[3] == 0:
                            type_id = field[1]
                        elif field[0] == 2 and field[3] == 2:
                            dims = [self._dim(d[1], d[2]) for d in self._inner(field[1], field[2], 1)]
        return Port(name, DTYPES.get(type_id, (f"type {type_id}", 0))[0], tuple(dims))

    def _dim(self, start: int, end: int) -> int | str:
        for number, at, to, kind in self.wire.fields(start, end):
            if number == 1 and kind == 0:
                return signed(at)
            if number == 2 and kind == 2:
                return self.wire.text(at, to)
        return "?"

    def _inner(self, start: int, end: int, wanted: int) -> Iterator[Field]:
        return (f for f in self.wire.fields(start, end) if f[0] == wanted and f[3] == 2)
