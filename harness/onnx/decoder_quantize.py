"""Fewer bits for a language model's graph, its token table among them.

The quantizer alone leaves the table in float where it is tied to the output matrix (read whole for every token), or
stores it twice. Here the lookup and the product share the same 8-bit bytes of the data file.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.onnx.decoder import last_product
from harness.onnx.quantize import ALIAS_KEY, BLOCK_SIZE, load, quantize_weights


def quantize_decoder(source: Path, target: Path, *, bits: int) -> Path:
    """Weights in blocks of 32, token table and output matrix in 8 bits, stored once where they are the same.

    Errors as :func:`~harness.onnx.quantize.quantize_weights`.
    """
    head = last_product(load(source, with_weights=False).graph).name
    return quantize_weights(source, target, bits=bits, exclude=[head], after=_table_in_blocks)


def _table_in_blocks(model: Any) -> None:
    """Replace the lookup of the token table and the product with the output matrix by their 8-bit forms."""
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    lookup = next((n for n in graph.node if n.op_type == "Gather" and n.input[1] == "input_ids"), None)
    product = last_product(graph)
    if lookup is None or product.op_type != "MatMul":
        return
    gone: set[str] = set()
    table, turned = (_constant(graph, name, gone) for name in (lookup.input[0], product.input[1]))
    if table is None or turned is None:
        return
    matrix = turned.T
    if table.dtype.kind != "f" or table.shape[1] % BLOCK_SIZE or matrix.shape[1] % BLOCK_SIZE:
        return
    tied = matrix.shape == table.shape and bool((matrix == table).all())
    names = ["table"] if tied else ["table", "head"]
    for name, values in zip(names, (table, matrix), strict=False):
        whole, scales = blocks_of_8(values, BLOCK_SIZE)
        graph.initializer.append(numpy_helper.from_array(whole, f"{name}.blocks"))
        graph.initializer.append(numpy_helper.from_array(scales.astype(table.dtype), f"{name}.scales"))
    rows = TensorProto(name="table.rows", data_type=TensorProto.UINT8, dims=table.shape)
    rows.external_data.add(key=ALIAS_KEY, value="table.blocks")
    graph.initializer.append(rows)
    head = names[-1]
    lookup.CopyFrom(helper.make_node(
        "GatherBlockQuantized", ["table.rows", "input_ids", "table.scales"], list(lookup.output), name=lookup.name,
        domain="com.microsoft", bits=8, block_size=BLOCK_SIZE, gather_axis=0, quantize_axis=1,
    ))  # fmt: skip
    product.CopyFrom(helper.make_node(
        "MatMulNBits", [product.input[0], f"{head}.blocks", f"{head}.scales"], list(product.output), name=product.name,
        domain="com.microsoft", bits=8, block_size=BLOCK_SIZE, K=matrix.shape[1], N=matrix.shape[0], accuracy_level=4,
    ))  # fmt: skip
    _drop_unused(model, gone)


def _constant(graph: Any, name: str, names: set[str]) -> NDArray[Any] | None:
    """A stored matrix, or one that is turned by a node; the names it goes by are added. None for anything else."""
    from onnx import numpy_helper

    names.add(name)
    found = next((t for t in graph.initializer if t.name == name), None)
    if found is not None:
        array: NDArray[Any] = numpy_helper.to_array(found)
        return array if array.ndim == 2 else None
    maker = next((n for n in graph.node if name in n.output), None)
    if maker is None or maker.op_type != "Transpose":
        return None
    inner = _constant(graph, maker.input[0], names)
    return None if inner is None else inner.T


def blocks_of_8(matrix: NDArray[Any], block_size: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Rows in 8-bit blocks: value = (byte - 128) x scale, scale = largest of the block / 127.

    The columns of [rows, columns] are a multiple of ``block_size``.

    Returns:
        Bytes [rows, columns / block_size, block_size] and scales [rows, columns / block_size].
    """
    blocks = matrix.astype(np.float32).reshape(len(matrix), -1, block_size)
    scales = (np.abs(blocks).max(-1) / 127).astype(np.float32, copy=False)
    safe = np.where(scales == 0, 1, scales)[:, :, None]
    return (np.rint(blocks / safe) + 128).astype(np.uint8), scales


def _drop_unused(model: Any, names: set[str]) -> None:
    """Remove of these values what nobody reads any more: the nodes that make them, and the tensors."""
    graph = model.graph

    def unread() -> set[str]:
        return names - {name for node in graph.node for name in node.input}

    for node in [n for n in graph.node if set(n.output) & unread()]:
        graph.node.remove(node)
    for tensor in [t for t in graph.initializer if t.name in unread()]:
        graph.initializer.remove(tensor)
    if not any(o.domain == "com.microsoft" for o in model.opset_import):
        model.opset_import.add(domain="com.microsoft", version=1)
