"""What kernels of ONNX Runtime take here: graphs of one operator, written byte by byte, on sizes of their own.

A convolution lies between reorderings of its input and output that a single node would pay for, so chains of two
lengths are timed and the difference is divided by the nodes that it has more.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from harness.domain.workload import Rate
from harness.measure.interpreter import usual
from harness.onnx.writer import GraphWriter

MICROSOFT: Final = "com.microsoft"
_SHORT, _LONG = 1, 5
_WIDTH: Final = 512
_BLOCK: Final = 32
_VECTOR_DIMS: Final = {"int8": (1056, 4128, 6176), "int4": (1056, 4128, 8224), "fp32": (608, 1568, 3616)}
"""Sides of the matrices that one vector is multiplied with: two that caches hold, one that none does. No powers of
two: rows that far apart fall into the same places of a cache."""

Graph = tuple[bytes, dict[str, NDArray[Any]]]
Adder = Callable[[GraphWriter, str, int], str]
"""Adds a node behind a value; the number tells the weights of one node from another's."""


def call_and_node_s() -> tuple[float, float]:
    """(call, node): chains of 1 and of 65 additions on eight values, none of them optimised away."""
    feed = {"x": np.ones(8, np.float32)}
    times = []
    for count in (1, 65):
        session = _session(additions(count), is_optimised=False)
        times.append(usual(lambda session=session: session.run(None, feed)))  # type: ignore[misc]
    node_s = max((times[1] - times[0]) / 64, 1e-9)
    return max(times[0] - node_s, 1e-9), node_s


def additions(node_count: int) -> bytes:
    """A model that doubles its input ``x`` [8] ``node_count`` times and gives ``y``."""
    graph = GraphWriter("chain")
    value = graph.input("x", [8])
    for at in range(node_count):
        value = graph.node("Add", [value, value], "y" if at == node_count - 1 else "")
    graph.output("y", [8])
    return graph.encode()


def engine_rates() -> dict[str, tuple[Rate, ...]]:
    """By kind and dtype: (smallest dimension, FLOP/s, or values/s for what has no products) of one thread."""
    rates: dict[str, list[Rate]] = {}
    for name, dim, flops, make in _measured():
        rates.setdefault(name, []).append((dim, flops / _seconds_of_one(make)))
    call_s = call_and_node_s()[0]
    for dtype, widths in _VECTOR_DIMS.items():
        rates[f"vector {dtype}"] = [_vector(dtype, width, call_s) for width in widths]
    return {name: tuple(sorted(entries)) for name, entries in rates.items()}


def _vector(dtype: str, width: int, call_s: float) -> Rate:
    """(bytes of the matrix, FLOP/s) of a square matrix by one vector; a node alone, as memory holds one matrix only."""

    def add(graph: GraphWriter, value: str, at: int) -> str:
        return (
            _plain(graph, value, at, width) if dtype == "fp32" else _blocks(graph, value, at, width, int(dtype[3:]), 4)
        )

    data, feed = _chain(1, [1, width], add)
    session = _session(data)
    own_s = usual(lambda: session.run(None, feed)) - call_s
    weights = width * width
    stored = {
        "fp32": 4 * weights,
        "int8": weights + 4 * weights // _BLOCK,
        "int4": weights // 2 + 4 * weights // _BLOCK,
    }
    return stored[dtype], 2.0 * weights / max(own_s, 1e-9)


def _measured() -> Iterator[tuple[str, int, float, Callable[[int], Graph]]]:
    """(name, dimension, FLOP of one node, graph of so many nodes)."""
    square = 2.0 * _WIDTH * _WIDTH
    for rows in (16, 64, 256):
        yield "product fp32", rows, square * rows, lambda k, rows=rows: _products(k, rows, _plain)  # type: ignore[misc]
        yield "product int8", rows, square * rows, lambda k, rows=rows: _products(k, rows, _dynamic)  # type: ignore[misc]
    yield "product int4", 256, square * 256, lambda k: _products(k, 256, lambda g, x, i: _blocks(g, x, i, _WIDTH, 4, 0))
    for channels, side in ((16, 56), (64, 28), (192, 14)):
        flops = 2.0 * side * side * channels * channels
        for dtype, add in (("fp32", _convolution), ("int8", _quantised)):
            yield (
                f"convolution {dtype}",
                channels,
                flops,
                lambda k, add=add, c=channels, s=side: _convolutions(k, c, s, 1, 1, add),  # type: ignore[misc]
            )
    for kernel in (3, 5):
        flops = 2.0 * 56 * 56 * 96 * kernel * kernel
        for dtype, add in (("fp32", _convolution), ("int8", _quantised)):
            yield (
                f"depthwise {dtype}",
                kernel,
                flops,
                lambda k, add=add, n=kernel: _convolutions(k, 96, 56, n, 96, add),  # type: ignore[misc]
            )
    adders: dict[str, Adder] = {
        "pass": lambda g, x, _at: g.node("Add", [x, x]),
        "softmax": lambda g, x, _at: g.node("Softmax", [x], axis=-1),
        "gelu": lambda g, x, _at: g.node("Gelu", [x], domain=MICROSOFT),
    }
    for kind, adder in adders.items():
        yield f"{kind} fp32", 0, 96.0 * 1024, lambda k, adder=adder: _chain(k, [96, 1024], adder)  # type: ignore[misc]


def _seconds_of_one(make: Callable[[int], Graph]) -> float:
    times = []
    for count in (_SHORT, _LONG):
        data, feed = make(count)
        session = _session(data)
        times.append(usual(lambda session=session, feed=feed: session.run(None, feed)))  # type: ignore[misc]
    return max((times[1] - times[0]) / (_LONG - _SHORT), 1e-9)


def _session(data: bytes, *, is_optimised: bool = True) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if not is_optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _chain(node_count: int, shape: list[int], add: Adder) -> Graph:
    graph = GraphWriter("units")
    value = graph.input("x", list(shape))
    for at in range(node_count):
        value = add(graph, value, at)
    graph.output(graph.node("Identity", [value], "y"), list(shape))
    return graph.encode(), {"x": _values(shape)}


def _values(shape: list[int]) -> NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal(shape, dtype=np.float32) * np.float32(0.05)


def _products(node_count: int, rows: int, add: Adder) -> Graph:
    return _chain(node_count, [rows, _WIDTH], add)


def _plain(graph: GraphWriter, value: str, at: int, width: int = _WIDTH) -> str:
    return graph.node("MatMul", [value, graph.tensor(f"w{at}", _values([width, width]))])


def _dynamic(graph: GraphWriter, value: str, at: int) -> str:
    weights = np.random.default_rng(at).integers(-127, 128, (_WIDTH, _WIDTH), np.int8)
    scale = graph.tensor("scale", np.array([4e-4], np.float32))
    return graph.node("DynamicQuantizeMatMul", [value, graph.tensor(f"w{at}", weights), scale], domain=MICROSOFT)


def _blocks(graph: GraphWriter, value: str, at: int, width: int, bits: int, accuracy: int) -> str:
    """``MatMulNBits`` of a square matrix with a scale for each block of 32 weights."""
    blocks = width // _BLOCK
    rng = np.random.default_rng(at)
    packed = rng.integers(0, 256, (width, blocks, _BLOCK * bits // 8), np.uint8)
    scales = np.full(width * blocks, 1e-3, np.float32)
    inputs = [value, graph.tensor(f"b{at}", packed), graph.tensor(f"s{at}", scales)]
    return graph.node(
        "MatMulNBits",
        inputs,
        domain=MICROSOFT,
        K=width,
        N=width,
        bits=bits,
        block_size=_BLOCK,
        accuracy_level=accuracy,
    )


def _convolutions(node_count: int, channels: int, side: int, kernel: int, group: int, add: Any) -> Graph:
    def one(graph: GraphWriter, value: str, at: int) -> str:
        found: str = add(graph, value, at, channels, kernel, group)
        return found

    graph = GraphWriter("units")
    shape = [1, channels, side, side]
    value = graph.input("x", shape)
    is_int = add is _quantised
    if is_int:
        value = graph.node("QuantizeLinear", [value, *_scale(graph)])
    for at in range(node_count):
        value = one(graph, value, at)
    if is_int:
        value = graph.node("DequantizeLinear", [value, *_scale(graph)])
    graph.output(graph.node("Identity", [value], "y"), shape)
    return graph.encode(), {"x": _values(shape)}


def _window(channels: int, kernel: int, group: int) -> tuple[list[int], dict[str, Any]]:
    attributes = {"kernel_shape": [kernel, kernel], "pads": [kernel // 2] * 4, "group": group}
    return [channels, channels // group, kernel, kernel], attributes


def _convolution(graph: GraphWriter, value: str, at: int, channels: int, kernel: int, group: int) -> str:
    shape, attributes = _window(channels, kernel, group)
    return graph.node("Conv", [value, graph.tensor(f"w{at}", _values(shape))], **attributes)


def _scale(graph: GraphWriter) -> tuple[str, str]:
    return graph.tensor("scale", np.array(0.02, np.float32)), graph.tensor("zero", np.array(128, np.uint8))


def _quantised(graph: GraphWriter, value: str, at: int, channels: int, kernel: int, group: int) -> str:
    shape, attributes = _window(channels, kernel, group)
    weights = np.random.default_rng(at).integers(-127, 128, shape, np.int8)
    own = (
        graph.tensor(f"w{at}", weights),
        graph.tensor("weight_scale", np.array(0.004, np.float32)),
        graph.tensor("weight_zero", np.array(0, np.int8)),
    )
    return graph.node("QLinearConv", [value, *_scale(graph), *own, *_scale(graph)], **attributes)
