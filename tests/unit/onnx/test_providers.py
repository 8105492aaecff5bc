"""Execution providers: names, refusals, and the share of a graph that really ran on each."""

from pathlib import Path

import numpy as np
import pytest

from harness.errors import RefusedError, UnknownNameError
from harness.onnx.providers import PROVIDERS, provider_named, provider_shares, providers_for
from harness.onnx.session import OnnxSession

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
CPU, OPENVINO = PROVIDERS["cpu"], PROVIDERS["openvino"]
FEEDS = {"x": np.ones((64, 256), np.float32)}


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


@pytest.mark.parametrize(("asked", "name"), [("openvino", OPENVINO), ("CoreML", "CoreMLExecutionProvider"), (CPU, CPU)])
def test_short_and_long_names(asked: str, name: str):
    assert provider_named(asked) == name


def test_unknown_and_missing_providers_are_refused(tmp_path: Path):
    with pytest.raises(UnknownNameError, match="npu2000"):
        provider_named("npu2000")
    assert providers_for("") == (CPU,)
    assert providers_for("openvino") == (OPENVINO, CPU)
    path = graph(tmp_path / "g.onnx", odd=False)
    absent = next(p for p in PROVIDERS.values() if p not in ort.get_available_providers())
    with pytest.raises(RefusedError, match=absent):
        provider_shares(path, FEEDS, [absent])
    with pytest.raises(RefusedError, match=f"options of {absent}"):
        OnnxSession(path, provider_options={absent: {}})


@pytest.mark.parametrize(("odd", "count"), [(False, 12), (True, 13)])
def test_all_of_a_graph_on_the_cpu(tmp_path: Path, odd: bool, count: int):
    (share,) = provider_shares(graph(tmp_path / "g.onnx", odd=odd), FEEDS, ["cpu"])
    assert (share.provider, share.node_count, share.node_ratio) == (CPU, count, 1.0)
    assert share.time_ratio == pytest.approx(1.0)


@pytest.mark.skipif(OPENVINO not in ort.get_available_providers(), reason="pip install onnxruntime-openvino, alone")
@pytest.mark.parametrize(("odd", "there", "left"), [(False, 12, 0), (True, 12, 1)])
def test_a_graph_that_falls_back_is_shown_as_such(tmp_path: Path, odd: bool, there: int, left: int):
    options = {OPENVINO: {"device_type": "CPU"}}
    path = graph(tmp_path / "g.onnx", odd=odd)
    openvino, cpu = provider_shares(path, FEEDS, ["openvino"], options=options)
    assert (openvino.node_count, cpu.node_count) == (there, left)
    assert openvino.node_ratio == pytest.approx(there / (there + left))
    assert openvino.time_ratio + cpu.time_ratio == pytest.approx(1.0)
    assert (cpu.time_ratio > 0) is bool(left)
