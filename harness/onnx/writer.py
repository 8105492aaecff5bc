"""Write an ONNX model without the ``onnx`` package: the few messages of onnx.proto3 that a graph needs.

A run, or a probe, then needs onnxruntime alone. Field numbers are those of the published onnx.proto3 (IR version 9);
the tests read the result with the ``onnx`` package's checker.
"""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from harness.onnx._wire import Wire

IR_VERSION: Final = 9
OPSET: Final = 17
_TYPES: Final[dict[str, int]] = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7}
_FLOAT, _INT, _STRING, _FLOATS, _INTS = 1, 2, 3, 6, 7

Attribute = int | float | str | Sequence[int] | Sequence[float]


class GraphWriter:
    """Collects nodes and tensors; each call that makes a value returns its name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[bytes] = []
        self._tensors: dict[str, bytes] = {}
        self._inputs: list[bytes] = []
        self._outputs: list[bytes] = []
        self._count = 0
        self._domains: set[str] = set()

    @property
    def node_count(self) -> int:
        """Nodes so far."""
        return len(self._nodes)

    def tensor(self, name: str, values: NDArray[Any]) -> str:
        """A constant; the same name again is the same tensor, so two branches share their weights."""
        if name not in self._tensors:
            values = np.ascontiguousarray(values)
            dims = b"".join(_varint_field(1, d) for d in values.shape)
            kind = _varint_field(2, _TYPES[values.dtype.name])
            self._tensors[name] = dims + kind + _bytes_field(8, name.encode()) + _bytes_field(9, values.tobytes())
        return name

    def node(
        self, kind: str, inputs: Sequence[str], output: str = "", *, domain: str = "", **attributes: Attribute
    ) -> str:
        """One operator with one output; returns the output's name. An input without a name is left out.

        Args:
            kind: The operator.
            inputs: Names, in the operator's order.
            output: Name of the result; made up when empty.
            domain: Set of operators; the standard's own when empty, ``com.microsoft`` for the engine's.
            attributes: Its attributes.
        """
        self._count += 1
        output = output or f"{self._name}_{kind.lower()}_{self._count}"
        parts = [_bytes_field(1, i.encode()) for i in inputs]
        parts += [
            _bytes_field(2, output.encode()),
            _bytes_field(3, f"{self._name}_{kind}_{self._count}".encode()),
            _bytes_field(4, kind.encode()),
        ]
        parts += [_bytes_field(5, _attribute(k, v)) for k, v in attributes.items()]
        if domain:
            parts.append(_bytes_field(7, domain.encode()))
            self._domains.add(domain)
        self._nodes.append(b"".join(parts))
        return output

    def input(self, name: str, shape: Sequence[int | str], dtype: str = "float32") -> str:
        """A graph input; a dimension given by a word is free."""
        self._inputs.append(_value(name, shape, dtype))
        return name

    def output(self, name: str, shape: Sequence[int | str], dtype: str = "float32") -> str:
        """A graph output."""
        self._outputs.append(_value(name, shape, dtype))
        return name

    def encode(self) -> bytes:
        """The model as ONNX Runtime reads it."""
        graph = _bytes_field(2, self._name.encode()) + self._parts()
        sets = [_bytes_field(1, b"") + _varint_field(2, OPSET)]
        sets += [_bytes_field(1, d.encode()) + _varint_field(2, 1) for d in sorted(self._domains)]
        head = _varint_field(1, IR_VERSION) + _bytes_field(2, b"edge-harness")
        return head + _bytes_field(7, graph) + b"".join(_bytes_field(8, s) for s in sets)

    def appended_to(self, source: Path) -> bytes:
        """The model in ``source`` with all that was collected here behind what its graph has.

        Repeated fields of a message may be put one behind the other (Protocol Buffers encoding), so nothing of the
        source is decoded.

        Raises:
            BadDataError: It is no ONNX model.
        """
        data = memoryview(source.read_bytes())
        others, graph = [], b""
        at = 0
        for number, start, end, kind in Wire(data, source).fields(0, len(data)):
            if number == 7 and kind == 2:
                graph = bytes(data[start:end])
            else:
                others.append((at, end))
            at = end
        return b"".join(bytes(data[a:b]) for a, b in others) + _bytes_field(7, graph + self._parts())

    def _parts(self) -> bytes:
        parts = [_bytes_field(1, n) for n in self._nodes]
        parts += [_bytes_field(5, t) for t in self._tensors.values()]
        parts += [_bytes_field(11, i) for i in self._inputs] + [_bytes_field(12, o) for o in self._outputs]
        return b"".join(parts)

    def save(self, path: Path) -> Path:
        """Write the model, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_bytes(self.encode())
        partial.replace(path)
        return path


def _attribute(name: str, value: Attribute) -> bytes:
    head = _bytes_field(1, name.encode())
    if isinstance(value, str):
        return head + _bytes_field(4, value.encode()) + _varint_field(20, _STRING)
    if isinstance(value, int):
        return head + _varint_field(3, value) + _varint_field(20, _INT)
    if isinstance(value, float):
        return head + _tag(2, 5) + struct.pack("<f", value) + _varint_field(20, _FLOAT)
    if all(isinstance(v, int) for v in value):
        return head + b"".join(_varint_field(8, int(v)) for v in value) + _varint_field(20, _INTS)
    floats = b"".join(_tag(7, 5) + struct.pack("<f", v) for v in value)
    return head + floats + _varint_field(20, _FLOATS)


def _value(name: str, shape: Sequence[int | str], dtype: str) -> bytes:
    dims = [_bytes_field(2, d.encode()) if isinstance(d, str) else _varint_field(1, d) for d in shape]
    tensor = _varint_field(1, _TYPES[dtype]) + _bytes_field(2, b"".join(_bytes_field(1, d) for d in dims))
    return _bytes_field(1, name.encode()) + _bytes_field(2, _bytes_field(1, tensor))


def _tag(field: int, wire: int) -> bytes:
    return _varint(field << 3 | wire)


def _varint_field(field: int, value: int) -> bytes:
    return _tag(field, 0) + _varint(value)


def _bytes_field(field: int, value: bytes) -> bytes:
    return _tag(field, 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
