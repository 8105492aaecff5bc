"""What an ONNX file says of itself: ports, nodes, tensors and where they lie; weights are never read.

Counts and depths are bounded, so that a hostile file costs no more than its size, and one that protobuf itself would
refuse (2 GiB) can still be looked at. Source of the walk: the protobuf encoding guide (varints, wire types 0, 1, 2 and
5); groups (3 and 4) do not occur in ONNX.
"""

import mmap
from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, Final, NamedTuple

from harness.domain.base import shipped_table
from harness.domain.foreign import say
from harness.errors import BadDataError

_KNOWN: Final = shipped_table("messages.toml", "harness.onnx")
_DTYPES: Final[Mapping[int, tuple[str, int]]] = {int(k): (name, bits) for k, (name, bits) in _KNOWN["dtypes"].items()}
_MESSAGES: Final[Mapping[str, Mapping[int, tuple[str, str]]]] = {
    message: {int(k): (name, inner) for k, (name, inner) in fields.items()}
    for message, fields in _KNOWN["messages"].items()
}
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
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else None
    except (OSError, ValueError) as error:
        raise BadDataError(path, "", f"unreadable ({error})", "an ONNX model") from error
    if mapped is None:
        raise BadDataError(path, "", "an empty file", "an ONNX model")
    with mapped, memoryview(mapped) as data:
        return _Reader(data, path).model(size)


class _Reader:
    """A protobuf file as bytes; every offset is checked against the message it lies in."""

    def __init__(self, data: memoryview, path: Path) -> None:
        self._data, self._path = data, path
        self._depth = 0
        self._nodes: list[Node] = []
        self._tensors: list[GraphTensor] = []
        self._ports: dict[str, list[Port]] = {"inputs": [], "outputs": []}

    def model(self, size: int) -> OnnxGraph:
        found = self._message("model", 0, size)
        outputs, graphs = self._ports["outputs"], len(found["graphs"])
        if graphs != 1 or not outputs:
            raise BadDataError(self._path, "graph", f"{graphs} graphs, {len(outputs)} outputs", "an ONNX model")
        stored = {t.name for t in self._tensors}
        return OnnxGraph(
            path=self._path,
            producer=_last(found, "producer"),
            opsets={_last(o, "domain"): _last(o, "version", 0) for o in found["opsets"]},
            inputs=tuple(p for p in self._ports["inputs"] if p.name not in stored),
            outputs=tuple(outputs),
            nodes=tuple(self._nodes),
            tensors=tuple(self._tensors),
            file_bytes=size,
        )

    def _message(self, kind: str, start: int, end: int) -> dict[str, list[Any]]:
        """Values of the wanted fields by their names; nodes and the tensors of graphs go to the reader's own lists."""
        wanted = _MESSAGES[kind]
        found: dict[str, list[Any]] = {name: [] for name, _ in wanted.values()}
        for number, at, to, wire in self._fields(start, end):
            name, inner = wanted.get(number, ("", ""))
            if inner == "int" and wire == 0:
                found[name].append(_signed(at))
            elif not inner or wire != 2:
                continue
            elif inner == "int":
                found[name] += self._packed(at, to)
            elif inner == "text":
                found[name].append(bytes(self._data[at:to]).decode("utf-8", "replace"))
            elif inner == "graph":
                found[name].append(None)
                self._graph(at, to)
            elif inner == "node":
                self._node(self._message(inner, at, to))
            elif inner == "tensor":
                found[name].append(self._tensor(self._message(inner, at, to)))
            else:
                found[name].append(self._message(inner, at, to))
        return found

    def _graph(self, start: int, end: int) -> None:
        if self._depth > _MAX_DEPTH or len(self._nodes) + len(self._tensors) > _MAX_ITEMS:
            raise BadDataError(self._path, "graph", "more nodes or deeper graphs", "what a model can have")
        self._depth += 1
        found = self._message("graph", start, end)
        self._depth -= 1
        self._tensors += found["tensors"]
        if not self._depth:
            for name, ports in self._ports.items():
                ports += [_port(fields) for fields in found[name]]

    def _node(self, found: dict[str, list[Any]]) -> None:
        op_type, attributes = _last(found, "op_type"), found["attributes"]
        if op_type == "Constant":
            name = found["outputs"][:1]
            self._tensors += [t._replace(name=(name or [t.name])[0]) for a in attributes for t in a["tensors"]]
        integers = {_last(a, "name"): a["value"][-1] for a in attributes if a["value"]}
        self._nodes.append(Node(op_type, _last(found, "domain"), tuple(found["inputs"]), integers))

    def _tensor(self, found: dict[str, list[Any]]) -> GraphTensor:
        name, dims = _last(found, "name"), tuple(found["dims"])
        dtype, bits = _dtype(found)
        size = -(-prod(dims[:_MOST_DIMS]) * bits // 8)
        if any(d < 0 for d in dims) or len(dims) > _MOST_DIMS or size >= 1 << 63:
            raise BadDataError(self._path, name, f"shape {list(dims[:9])}", "a few dimensions, none negative")
        external = {_last(e, "key"): _last(e, "value") for e in found["external"]}
        offset, location = external.get("offset", "0"), external.get("location", "")
        if not offset.isdecimal() or len(offset) > 18:
            raise BadDataError(self._path, name, f"offset {say(offset)}", "a number of bytes")
        if "\0" in location or any(len(part.encode()) > 255 for part in location.split("/")):
            raise BadDataError(self._path, name, f"location {say(location)}", "the name of a file")
        return GraphTensor(name, dtype, dims, size, location, int(offset))

    def _fields(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """(number, start, end, wire type) of each field of the message in [start, end); of a varint value for start.

        Raises:
            BadDataError: It is no protobuf message.
        """
        at = start
        while at < end:
            key, at = self._varint(at, end)
            number, wire = key >> 3, key & 7
            if wire == 0:
                value, at = self._varint(at, end)
                yield number, value, at, wire
                continue
            if wire == 2:
                size, at = self._varint(at, end)
            elif wire in {1, 5}:
                size = 8 if wire == 1 else 4
            else:
                raise self._bad(f"wire type {wire}")
            if number == 0 or at + size > end:
                raise self._bad(f"a field of {size} bytes with {end - at} left")
            yield number, at, at + size, wire
            at += size

    def _packed(self, at: int, end: int) -> Iterator[int]:
        while at < end:
            number, at = self._varint(at, end)
            yield _signed(number)

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                raise self._bad("the end inside a number")
            byte = self._data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return value, at
        raise self._bad("a number of more than ten bytes")

    def _bad(self, found: str) -> BadDataError:
        return BadDataError(self._path, "", found, "an ONNX model (protobuf)")


def _signed(value: int) -> int:
    """An int64 from its varint."""
    return value - (1 << 64) if value >= 1 << 63 else value


def _last(found: Mapping[str, list[Any]], name: str, default: Any = "") -> Any:
    """A field that is there once: of several the last one counts."""
    return found[name][-1] if found[name] else default


def _dtype(found: Mapping[str, list[Any]]) -> tuple[str, int]:
    number = _last(found, "type", 0)
    return _DTYPES.get(number, (f"type {number}", 0))


def _port(found: dict[str, list[Any]]) -> Port:
    tensors = [tensor for kind in found["type"] for tensor in kind["tensor"]]
    dtype = _dtype(tensors[-1])[0] if tensors else "type 0"
    shapes = [shape for tensor in tensors for shape in tensor["shape"]]
    dims = shapes[-1]["dims"] if shapes else []
    return Port(_last(found, "name"), dtype, tuple((d["size"] or d["name"] or ["?"])[-1] for d in dims))
