"""Execution providers: names, refusals, and whether all of a graph really runs there."""

from pathlib import Path

import numpy as np
import pytest

from harness.core.errors import RefusedError, UnknownNameError
from harness.onnx.ort_session import PROVIDERS, OnnxSession, providers_for

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
CPU, OPENVINO = PROVIDERS["cpu"], PROVIDERS["openvino"]


def graph(path: Path, *, odd: bool) -> Path:
    """Six products with a ReLU each, 12 nodes; ``odd`` has a Unique, which OpenVINO does not take, and a Slice, 13."""
    from onnx import TensorProto, helper, numpy_helper

    draw, nodes, weights, x = np.random.default_rng(0), [], [], "x"

    def constant(name: str, value: np.ndarray) -> None:
        weights.append(numpy_helper.from_array(value, name))

    for layer in range(6):
        constant(f"w{layer}", (draw.standard_normal((256, 256)) / 16).astype(np.float32))
        nodes.append(helper.make_node("MatMul", [x, f"w{layer}"], [f"m{layer}"], name=f"product{layer}"))
        if odd and layer == 3:
            for name, value in (("first", 0), ("last", 256), ("axis", 1)):
                constant(name, np.array([value]))
            nodes.append(helper.make_node("Unique", ["m3"], ["u3"], name="unique", axis=1))
            nodes.append(helper.make_node("Slice", ["u3", "first", "last", "axis"], ["r3"], name="cut"))
        else:
            nodes.append(helper.make_node("Relu", [f"m{layer}"], [f"r{layer}"], name=f"relu{layer}"))
        x = f"r{layer}"
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, d) for n, d in (("x", [64, 256]), (x, None))]
    made = helper.make_graph(nodes, "g", ports[:1], ports[1:], weights)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_names_and_what_this_build_lacks(tmp_path: Path):
    assert providers_for("") == providers_for("CPU") == (CPU,)
    assert providers_for("openvino") == (OPENVINO, CPU)
    with pytest.raises(UnknownNameError, match="npu2000"):
        providers_for("npu2000")
    absent = next(p for p in PROVIDERS.values() if p not in ort.get_available_providers())
    with pytest.raises(RefusedError, match=absent):
        OnnxSession(graph(tmp_path / "g.onnx", odd=False), providers=[absent])
