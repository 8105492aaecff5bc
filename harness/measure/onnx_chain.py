"""The smallest ONNX model there is: a chain of additions, written byte by byte, so that no exporter is needed.

Field numbers are those of onnx.proto (ModelProto: ir_version 1, graph 7, opset_import 8; GraphProto: node 1, name 2,
input 11, output 12; NodeProto: input 1, output 2, op_type 4).
"""


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _value(name: str) -> bytes:
    """ValueInfoProto: a float vector of eight."""
    shape = _bytes(1, _number(1, 8))  # TensorShapeProto.dim.dim_value
    tensor = _number(1, 1) + _bytes(2, shape)  # TypeProto.Tensor: elem_type FLOAT, shape
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, tensor))


def chain(node_count: int) -> bytes:
    """A model that doubles its input ``x`` [8] ``node_count`` times and gives ``y``."""
    nodes = b""
    for i in range(node_count):
        source = b"x" if i == 0 else f"t{i - 1}".encode()
        target = b"y" if i == node_count - 1 else f"t{i}".encode()
        nodes += _bytes(1, _bytes(1, source) * 2 + _bytes(2, target) + _bytes(4, b"Add"))
    graph = nodes + _bytes(2, b"chain") + _bytes(11, _value("x")) + _bytes(12, _value("y"))
    return _number(1, 8) + _bytes(7, graph) + _bytes(8, _number(2, 17))
