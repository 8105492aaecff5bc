"""all-MiniLM-L6-v2 as an ONNX folder, made once from the weights that a registry package carries.

Source: Devlin et al. 2019 (BERT); Reimers and Gurevych 2019 (Sentence-BERT).
"""

from math import sqrt
from pathlib import Path
from typing import Any, Final

import numpy as np

from harness.domain.foreign import json_of
from harness.errors import optional
from harness.records.store import write_atomically
from harness.workloads import _networks

ANONYMOUS_BYTES: Final = 116 << 20
"""Weights in fp32, tokenizer and intermediate results, as measured in a process that embeds single sentences."""
_OPSET: Final = 20


def minilm_folder(cache: Path) -> Path:
    """A folder with model.onnx, tokenizer.json and config.json; fetched by pip and made where it is not there.

    Raises:
        FetchError: pip could not have the package, or its files are not what they were.
        MissingPackageError: ``onnx`` or ``safetensors`` is not installed.
    """
    folder = _networks.fetch(cache / "all-minilm-l6-v2", "minilm").parent
    if not (folder / "model.onnx").is_file():
        with optional("safetensors", "onnx"):
            from safetensors.numpy import load_file
        config = json_of((folder / "config.json").read_bytes(), folder / "config.json", "a configuration")
        write_atomically(folder / "model.onnx", _bert(load_file(folder / "model.safetensors"), config))
    return folder


def _bert(weights: dict[str, Any], config: dict[str, Any]) -> bytes:
    """The graph of a BERT encoder: ids, mask and types [rows, tokens] to hidden states [rows, tokens, dim]."""
    with optional("onnx", "onnx"):
        from onnx import TensorProto, helper, numpy_helper
    nodes: list[Any] = []
    constants: list[Any] = []
    heads, dim = config["num_attention_heads"], config["hidden_size"]

    def constant(value: Any) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value), f"c{len(constants)}"))
        return str(constants[-1].name)

    def node(kind: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, list(inputs), [f"n{len(nodes)}"], **attributes))
        return str(nodes[-1].output[0])

    def weight(name: str) -> str:
        return constant(weights[name].astype(np.float32))

    def linear(x: str, name: str) -> str:
        product = node("MatMul", x, constant(weights[f"{name}.weight"].astype(np.float32).T))
        return node("Add", product, weight(f"{name}.bias"))

    def norm(x: str, name: str) -> str:
        scale, bias = weight(f"{name}.weight"), weight(f"{name}.bias")
        return node("LayerNormalization", x, scale, bias, epsilon=config["layer_norm_eps"])

    def split(x: str, name: str, order: list[int]) -> str:
        parts = node("Reshape", linear(x, name), constant(np.array([0, 0, heads, dim // heads])))
        return node("Transpose", parts, perm=order)

    width = node("Shape", "input_ids", start=1)
    positions = node("Slice", weight("embeddings.position_embeddings.weight"), constant(np.array([0])), width)
    x = node("Gather", weight("embeddings.word_embeddings.weight"), "input_ids")
    x = node(
        "Add",
        node("Add", x, positions),
        node("Gather", weight("embeddings.token_type_embeddings.weight"), "token_type_ids"),
    )
    x = norm(x, "embeddings.LayerNorm")
    seen = node("Cast", node("Unsqueeze", "attention_mask", constant(np.array([1, 2]))), to=TensorProto.FLOAT)
    hidden = node("Mul", node("Sub", seen, constant(np.float32(1))), constant(np.float32(1e9)))
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        query = split(x, f"{at}.attention.self.query", [0, 2, 1, 3])
        key = split(x, f"{at}.attention.self.key", [0, 2, 3, 1])
        value = split(x, f"{at}.attention.self.value", [0, 2, 1, 3])
        scores = node("Mul", node("MatMul", query, key), constant(np.float32(1 / sqrt(dim // heads))))
        mixed = node("MatMul", node("Softmax", node("Add", scores, hidden), axis=-1), value)
        joined = node("Reshape", node("Transpose", mixed, perm=[0, 2, 1, 3]), constant(np.array([0, 0, dim])))
        x = norm(node("Add", x, linear(joined, f"{at}.attention.output.dense")), f"{at}.attention.output.LayerNorm")
        inner = node("Gelu", linear(x, f"{at}.intermediate.dense"))
        x = norm(node("Add", x, linear(inner, f"{at}.output.dense")), f"{at}.output.LayerNorm")
    shape = ["rows", "tokens"]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, shape)
        for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    output = helper.make_tensor_value_info(x, TensorProto.FLOAT, [*shape, dim])
    graph = helper.make_graph(nodes, "bert", inputs, [output], constants)
    opsets = [helper.make_opsetid("", _OPSET)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())
