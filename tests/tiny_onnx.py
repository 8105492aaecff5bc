"""A small ONNX decoder with random weights, built node by node: what an exporter writes, without torch.

Names and shapes are those of decoders exported by optimum-onnx and by the onnxruntime-genai builder. ``fused`` takes
the latter's attention (``GroupQueryAttention``), which writes into the cache it is given; else the cache is
concatenated, as the former does it. Both compute the same: learned positions, causal attention over two heads that
share one key and value head, a residual, and a matrix to the vocabulary (or the token table turned, when ``tied``;
the table is the matrix turned, when ``turned`` as well).
"""

from math import sqrt
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from harness.core.errors import EngineError
from harness.runtimes.ort import KEEP_INPUT

VOCAB_COUNT: Final = 256
HIDDEN_DIM: Final = 64
HEAD_COUNT: Final = 2
HEAD_DIM: Final = 32
POSITION_COUNT: Final = 512
Weights = dict[str, NDArray[np.float32]]


def tiny_weights(*, layer_count: int = 2, seed: int = 0) -> Weights:
    """Random weights: ``table``, ``positions``, ``head`` and for each layer ``q k v o``."""
    draw = np.random.default_rng(seed)

    def matrix(*shape: int) -> NDArray[np.float32]:
        return (draw.standard_normal(shape) / sqrt(shape[0])).astype(np.float32)

    weights = {
        "table": draw.standard_normal((VOCAB_COUNT, HIDDEN_DIM)).astype(np.float32),
        "positions": draw.standard_normal((POSITION_COUNT, HIDDEN_DIM)).astype(np.float32),
        "head": matrix(HIDDEN_DIM, VOCAB_COUNT),
    }
    for layer in range(layer_count):
        weights[f"{layer}.q"] = matrix(HIDDEN_DIM, HEAD_COUNT * HEAD_DIM)
        weights[f"{layer}.k"] = matrix(HIDDEN_DIM, HEAD_DIM)
        weights[f"{layer}.v"] = matrix(HIDDEN_DIM, HEAD_DIM)
        weights[f"{layer}.o"] = matrix(HEAD_COUNT * HEAD_DIM, HIDDEN_DIM)
    return weights


def reference_logits(weights: Weights, tokens: list[int], *, tied: bool = False) -> NDArray[np.float64]:
    """Logits [len(tokens), VOCAB_COUNT] of the whole text at once, in double precision, with no cache."""
    count = len(tokens)
    x = weights["table"][tokens].astype(np.float64) + weights["positions"][:count]
    causal = np.tril(np.ones((count, count), bool))
    for layer in range(sum(name.endswith(".q") for name in weights)):
        q, k, v = (x @ weights[f"{layer}.{part}"] for part in "qkv")
        mixed = []
        for head in range(HEAD_COUNT):
            scores = np.where(causal, q[:, head * HEAD_DIM : (head + 1) * HEAD_DIM] @ k.T / sqrt(HEAD_DIM), -np.inf)
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            mixed.append(scores / scores.sum(-1, keepdims=True) @ v)
        x = x + np.concatenate(mixed, -1) @ weights[f"{layer}.o"]
    result: NDArray[np.float64] = x @ (weights["table"].T if tied else weights["head"])
    return result


def write_tiny_decoder(
    folder: Path,
    weights: Weights,
    *,
    fused: bool = False,
    tied: bool = False,
    turned: bool = False,
    external: bool = True,
) -> Path:
    """Write ``model.onnx`` (with its weights beside it when ``external``) and ``tokenizer.json``; the model's path."""
    from onnx import TensorProto, helper, save_model

    layers = range(sum(name.endswith(".q") for name in weights))
    caches = [f"{layer}.{part}" for layer in layers for part in ("key", "value")]

    def port(name: str, kind: int, *dims: int | str) -> Any:
        return helper.make_tensor_value_info(name, kind, list(dims))

    def cache(name: str, length: str) -> Any:
        return port(name, TensorProto.FLOAT, "batch_size", 1, length, HEAD_DIM)

    builder = _Builder(weights, tied, turned)
    for layer in layers:
        builder.layer(layer, fused)
    builder.head()
    whole = "past_sequence_length + sequence_length"
    graph = helper.make_graph(
        builder.nodes,
        "tiny",
        [
            port("input_ids", TensorProto.INT64, "batch_size", "sequence_length"),
            port("attention_mask", TensorProto.INT64, "batch_size", whole),
            port("position_ids", TensorProto.INT64, "batch_size", "sequence_length"),
            *[cache(f"past_key_values.{name}", "past_sequence_length") for name in caches],
        ],
        [
            port("logits", TensorProto.FLOAT, "batch_size", "sequence_length", VOCAB_COUNT),
            *[cache(f"present.{name}", whole) for name in caches],
        ],
        builder.tensors,
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="edge-harness tiny")
    path = folder / "model.onnx"
    if external:
        store(model, path)
    else:
        save_model(model, str(path))
    _byte_tokenizer().save(str(folder / "tokenizer.json"))
    return path


def store(model: Any, path: Path) -> None:
    """Write a model with its weights in ``<path>.data``; replaces what is there."""
    import onnx

    data = path.with_name(f"{path.name}.data")
    data.unlink(missing_ok=True)  # the writer appends
    onnx.save_model(model, str(path), save_as_external_data=True, location=data.name, size_threshold=1024)


def quantize(path: Path, bits: int) -> None:
    """Turn the constant matrices of a graph into blocks of 32 with a scale each, by ONNX Runtime's own quantizer."""
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(onnx.load(path), bits=bits, block_size=32, is_symmetric=True, accuracy_level=4)
    quantizer.process()
    store(quantizer.model.model, path)


class _Builder:
    """Nodes in order, and the tensors they need."""

    def __init__(self, weights: Weights, tied: bool, turned: bool) -> None:
        from onnx import numpy_helper

        self.nodes: list[Any] = []
        used = {n: w for n, w in weights.items() if n != "head" or not tied}
        self.tensors = [numpy_helper.from_array(w, n) for n, w in used.items()]
        self._tied = tied
        self._turned = tied and turned
        self._made = 0
        table = "table"
        if self._turned:  # as the genai builder ties them: the output matrix is stored, and turned to look up tokens
            at = next(i for i, tensor in enumerate(self.tensors) if tensor.name == "table")
            self.tensors[at] = numpy_helper.from_array(weights["table"].T.copy(), "head")
            table = self.op("Transpose", "head", perm=[1, 0])
        self.x = self.op("Add", self.op("Gather", table, "input_ids"), self.op("Gather", "positions", "position_ids"))
        self._one = self.constant([1])

    def constant(self, values: Any, kind: Any = np.int64) -> str:
        from onnx import numpy_helper

        name = f"constant_{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.array(values, kind), name))
        return name

    def op(self, op_type: str, *inputs: str, output: str = "", domain: str = "", **attributes: Any) -> str:
        from onnx import helper

        self._made += 1
        name = output or f"t{self._made}"
        node = helper.make_node(op_type, inputs, [name], name=f"n{self._made}", domain=domain, **attributes)
        self.nodes.append(node)
        return name

    def layer(self, layer: int, fused: bool) -> None:
        q, k, v = (self.op("MatMul", self.x, f"{layer}.{part}") for part in "qkv")
        mixed = self._fused(layer, q, k, v) if fused else self._plain(layer, q, k, v)
        self.x = self.op("Add", self.x, self.op("MatMul", mixed, f"{layer}.o"))

    def head(self) -> None:
        matrix = self.op("Transpose", "table", perm=[1, 0]) if self._tied and not self._turned else "head"
        self.op("MatMul", self.x, matrix, output="logits")

    def _heads(self, x: str, count: int) -> str:
        return self.op(
            "Transpose", self.op("Reshape", x, self.constant([0, 0, count, HEAD_DIM])), perm=[0, 2, 1, 3]
        )  # fmt: skip

    def _plain(self, layer: int, q: str, k: str, v: str) -> str:
        keys, values = (
            self.op("Concat", f"past_key_values.{layer}.{name}", self._heads(part, 1), output=f"present.{layer}.{name}",
                    axis=2)
            for name, part in (("key", k), ("value", v))
        )  # fmt: skip
        turned = self.op("Transpose", keys, perm=[0, 1, 3, 2])
        scores = self.op("MatMul", self._heads(q, HEAD_COUNT), turned)
        scores = self.op("Mul", scores, self.constant(1 / sqrt(HEAD_DIM), np.float32))
        length = self.op("Gather", self.op("Shape", "attention_mask"), self.constant(1))
        there = self.op("Range", self.constant(0), length, self.constant(1))
        # Key j is seen from position i when j <= i: [batch, 1, tokens, keys].
        seen = self.op("LessOrEqual", there, self.op("Unsqueeze", "position_ids", self.constant([1, 3])))
        scores = self.op("Where", seen, scores, self.constant(-1e30, np.float32))
        mixed = self.op("MatMul", self.op("Softmax", scores, axis=-1), values)
        return self.op(
            "Reshape", self.op("Transpose", mixed, perm=[0, 2, 1, 3]), self.constant([0, 0, HEAD_COUNT * HEAD_DIM])
        )

    def _fused(self, layer: int, q: str, k: str, v: str) -> str:
        from onnx import TensorProto, helper

        summed = self.op("ReduceSum", "attention_mask", self._one, keepdims=0)
        seen = self.op("Cast", self.op("Sub", summed, self._one), to=TensorProto.INT32)
        length = self.op("Gather", self.op("Shape", "attention_mask"), self.constant(1))
        total = self.op("Cast", length, to=TensorProto.INT32)
        past = [f"past_key_values.{layer}.{name}" for name in ("key", "value")]
        outputs = [f"mixed.{layer}", f"present.{layer}.key", f"present.{layer}.value"]
        node = helper.make_node(
            "GroupQueryAttention", [q, k, v, *past, seen, total], outputs, name=f"attention.{layer}",
            domain="com.microsoft", num_heads=HEAD_COUNT, kv_num_heads=1,
        )  # fmt: skip
        self.nodes.append(node)
        return outputs[0]


def _byte_tokenizer() -> Any:
    """Each byte is a token: byte-level BPE without merges, its 256 signs in the order of their code points."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    signs = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={sign: i for i, sign in enumerate(signs)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def keep_last_logits(model: Any) -> None:
    """Give the graph an input ``num_logits_to_keep`` and compute the logits of that many last tokens (0: of all).

    Without it, a prompt of 512 tokens costs 512 rows of the vocabulary's matrix, of which one is read.

    The ``onnx.ModelProto`` is changed in place. EngineError where it does not end in a matrix product.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    if any(i.name == KEEP_INPUT for i in graph.input):
        return
    product = _last_product(graph)
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


def _last_product(graph: Any) -> Any:
    """The node that multiplies by the vocabulary's matrix; EngineError where the logits come from none."""
    by_output = {output: node for node in graph.node for output in node.output}
    node = by_output.get("logits")
    while node is not None and node.op_type in {"Cast", "Identity", "Add", "Mul"}:
        node = by_output.get(node.input[0])
    if node is None or node.op_type not in {"MatMul", "MatMulNBits", "Gemm"}:
        raise EngineError("the logits come from no matrix product: they cannot be computed for some tokens alone")
    return node
