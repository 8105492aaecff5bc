"""Language models as ONNX graphs: which ports carry the cache, and changes that make a graph better or smaller.

The names are those that optimum-onnx and the onnxruntime-genai builder write: ``input_ids``, ``attention_mask``,
``position_ids``, ``past_key_values.<layer>.key|value`` and ``present.<layer>.key|value``, ``logits``.
``num_logits_to_keep`` is the name that published exports use for "of the last so many tokens only" (0 for all).
"""

import re
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.domain.foreign import json_of, read_limited
from harness.errors import BadDataError, EngineError, RefusedError
from harness.onnx.graph import OnnxGraph, Port
from harness.onnx.quantize import ALIAS_KEY, BLOCK_SIZE, load, quantize_weights

KEEP_INPUT: Final = "num_logits_to_keep"
_KNOWN: Final = frozenset({"input_ids", "attention_mask", "position_ids", KEEP_INPUT})
_PAST: Final = re.compile(r"past_key_values\.(\d+)\.(key|value)")
_WRITES_IN_PLACE: Final = "GroupQueryAttention"


class DecoderPorts(NamedTuple):
    """How to run a decoder: its cache inputs and outputs in the same order, with their types, and its other inputs.

    Where the cache is ``shared`` it may be written in place: one buffer of the full context serves as past and present.
    """

    past: tuple[str, ...]
    present: tuple[str, ...]
    dtype: str
    head_count: tuple[int, ...]
    head_dims: tuple[int, ...]
    logits_dtype: str
    vocab_count: int
    inputs: frozenset[str]
    shared: bool

    @property
    def keeps(self) -> bool:
        """Whether the graph can compute the logits of the last tokens alone."""
        return KEEP_INPUT in self.inputs


def decoder_ports(graph: OnnxGraph) -> DecoderPorts:
    """The ports of a decoder with a cache; RefusedError where the graph is something else, or of another form."""
    name = graph.path.parent.name + "/" + graph.path.name
    past = [p for p in graph.inputs if _PAST.fullmatch(p.name)]
    others = [p for p in graph.inputs if not _PAST.fullmatch(p.name)]
    outputs = {p.name: p for p in graph.outputs}
    if "logits" not in outputs or not any(p.name == "input_ids" for p in others):
        raise RefusedError(f"{name} is no language model: it has no input_ids or no logits")
    if not past:
        raise RefusedError(f"{name} has no cache: export it with past (task text-generation-with-past)")
    if unknown := [p.name for p in others if p.name not in _KNOWN]:
        raise RefusedError(f"{name} has an input {unknown[0]!r} that this runtime does not know")
    present = [p.name.replace("past_key_values", "present") for p in past]
    if missing := [p for p in present if p not in outputs]:
        raise RefusedError(f"{name} has a cache input without its output {missing[0]!r}")
    kinds = {p.dtype for p in past}
    if len(kinds) != 1 or not kinds <= {"F32", "F16"}:
        raise RefusedError(f"{name} keeps its cache as {', '.join(sorted(kinds))}: F32 or F16 is supported")
    vocab_count = outputs["logits"].dims[-1] if outputs["logits"].dims else "?"
    if not isinstance(vocab_count, int):
        raise RefusedError(f"{name} does not say how many logits it has")
    attention = [n for n in graph.nodes if n.op_type == _WRITES_IN_PLACE]
    return DecoderPorts(
        past=tuple(p.name for p in past),
        present=tuple(present),
        dtype=past[0].dtype,
        head_count=tuple(_fixed(p, 1, name) for p in past),
        head_dims=_head_dims(past, graph.path.parent, name),
        logits_dtype=outputs["logits"].dtype,
        vocab_count=vocab_count,
        inputs=frozenset(p.name for p in others),
        # Only where every layer's attention writes in place, and none looks at a window of it.
        shared=2 * len(attention) == len(past)
        and all(n.attributes.get("local_window_size", -1) < 0 for n in attention),
    )


def _head_dims(past: list[Port], folder: Path, name: str) -> tuple[int, ...]:
    """Head sizes by the ports; where those leave it open (the genai builder does), by the configuration beside them."""
    if all(isinstance(p.dims[-1], int) for p in past if len(p.dims) == 4):
        return tuple(_fixed(p, 3, name) for p in past)
    for file, keys in (("genai_config.json", ("model", "decoder", "head_size")), ("config.json", ("head_dim",))):
        try:
            found = json_of(read_limited(folder / file), folder / file, "a configuration")
            for key in keys:
                found = found[key]
        except (BadDataError, KeyError, TypeError):
            continue
        if isinstance(found, int) and found > 0:
            return (found,) * len(past)
    raise RefusedError(f"{name} does not say how large its heads are, nor does a configuration beside it")


def _fixed(port: Port, axis: int, name: str) -> int:
    size = port.dims[axis] if len(port.dims) == 4 else "?"
    if not isinstance(size, int):
        raise RefusedError(f"{name}: {port.name} is {port.dims}, expected [batch, heads, tokens, head size]")
    return size


def keep_last_logits(model: Any) -> None:
    """Give the graph an input ``num_logits_to_keep`` and compute the logits of that many last tokens (0: of all).

    Without it, a prompt of 512 tokens costs 512 rows of the vocabulary's matrix, of which one is read.

    The ``onnx.ModelProto`` is changed in place. EngineError where it does not end in a matrix product.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    if any(i.name == KEEP_INPUT for i in graph.input):
        return
    product = last_product(graph)
    hidden = product.input[0]
    constants = {"keep.end": [2**63 - 1], "keep.axis": [1], "keep.shape": [1]}
    graph.initializer.extend(numpy_helper.from_array(np.array(v, np.int64), n) for n, v in constants.items())
    product.input[0] = "keep.hidden"
    at = next(i for i, node in enumerate(graph.node) if node.name == product.name and node.output == product.output)
    for offset, (kind, inputs, output) in enumerate((
        ("Neg", [KEEP_INPUT], "keep.negative"),
        ("Reshape", ["keep.negative", "keep.shape"], "keep.start"),
        ("Slice", [hidden, "keep.start", "keep.end", "keep.axis"], "keep.hidden"),
    )):  # fmt: skip
        graph.node.insert(at + offset, helper.make_node(kind, inputs, [output], name=f"keep/{kind}"))
    graph.input.append(helper.make_tensor_value_info(KEEP_INPUT, TensorProto.INT64, []))
    logits = next(o for o in graph.output if o.name == "logits")
    logits.type.tensor_type.shape.dim[1].dim_param = "kept_logits"


def table_by_rows(model: Any) -> None:
    """Store a tied table as rows of tokens, where the graph stores the output matrix and turns it to look them up.

    Rows of a mapped table are read as tokens come; a turned matrix is computed at load and kept in memory as a whole,
    beside the copy that the product's kernel packs.

    The ``onnx.ModelProto`` is changed in place, or left alone when it is not of that form.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    product = last_product(graph)
    stored = {t.name: t for t in graph.initializer}
    lookup = next((n for n in graph.node if n.op_type == "Gather" and n.input[1] == "input_ids"), None)
    turn = next((n for n in graph.node if lookup is not None and lookup.input[0] in n.output), None)
    if lookup is None or turn is None or turn.op_type != "Transpose" or product.op_type != "MatMul":
        return
    name = product.input[1]
    if turn.input[0] != name or name not in stored or sum(name in n.input for n in graph.node) != 2:
        return
    rows = numpy_helper.from_array(numpy_helper.to_array(stored[name]).T.copy(), "table.rows")
    graph.initializer.remove(stored[name])
    graph.initializer.append(rows)
    lookup.input[0] = "table.rows"
    product.input[1] = "table.turned"
    graph.node.remove(turn)
    graph.node.insert(
        0, helper.make_node("Transpose", ["table.rows"], ["table.turned"], name="table/Turn", perm=[1, 0])
    )


def last_product(graph: Any) -> Any:
    """The node that multiplies by the vocabulary's matrix; EngineError where the logits come from none."""
    by_output = {output: node for node in graph.node for output in node.output}
    node = by_output.get("logits")
    while node is not None and node.op_type in {"Cast", "Identity", "Add", "Mul"}:
        node = by_output.get(node.input[0])
    if node is None or node.op_type not in {"MatMul", "MatMulNBits", "Gemm"}:
        raise EngineError("the logits come from no matrix product: they cannot be computed for some tokens alone")
    return node


def quantize_decoder(source: Path, target: Path, *, bits: int) -> Path:
    """Weights in blocks of 32, token table and output matrix in 8 bits, stored once where they are the same.

    The quantizer alone leaves the table in float where it is tied to the output matrix (read whole for every token), or
    stores it twice. Here the lookup and the product share the same 8-bit bytes of the data file.

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
    if (found := next((t for t in graph.initializer if t.name == name), None)) is not None:
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
