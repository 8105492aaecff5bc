"""Sessions and quantizers on small real graphs, run by the real engine."""

import logging
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from harness.errors import BadDataError, EngineError, RefusedError
from harness.onnx import quantize as q
from harness.onnx.files import lint, quant_label, quantization, size_bytes
from harness.onnx.graph import read_graph
from harness.onnx.providers import node_events
from harness.onnx.session import OnnxSession

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx_ir")
pytestmark = pytest.mark.engine

DRAW = np.random.default_rng(0)
WEIGHT = DRAW.standard_normal((64, 32)).astype(np.float32)
X = DRAW.standard_normal((5, 64)).astype(np.float32)


@pytest.fixture
def product(tmp_path: Path) -> Path:
    """y = x @ w, with the weight inside the file."""
    h, t = onnx.helper, onnx.TensorProto
    graph = h.make_graph(
        [h.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "g",
        [h.make_tensor_value_info("x", t.FLOAT, ["rows", 64])],
        [h.make_tensor_value_info("y", t.FLOAT, ["rows", 32])],
        [onnx.numpy_helper.from_array(WEIGHT, "w")],
    )
    path = tmp_path / "product.onnx"
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 18)], ir_version=10), str(path))
    return path


def test_session_tells_its_settings_and_runs(product: Path):
    with OnnxSession(product, thread_count=2, prepack=False) as session:
        assert np.allclose(session.run({"x": X, "unknown": 1})[0], X @ WEIGHT, atol=1e-5)
        told = session.identity()
    assert told["providers"] == ["CPUExecutionProvider"]
    assert (told["thread_count"], told["prepack"], told["quantization"]) == (2, False, "F32")
    assert told["engine"].startswith("onnxruntime 1.")
    session.close()


def test_refusals(product: Path, tmp_path: Path):
    with pytest.raises(RefusedError, match="CUDAExecutionProvider; it has"):
        OnnxSession(product, providers=["CUDAExecutionProvider"])
    with pytest.raises(BadDataError, match="no such file"):
        OnnxSession(tmp_path / "none.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(EngineError, match="would not load broken"):
        OnnxSession(broken)
    with OnnxSession(product) as session, pytest.raises(EngineError, match="could not run product"):
        session.run({"x": np.zeros((5, 3), np.float32)})


# Largest error of a rounded weight: half a step, range / 255 / 2 in 8 bits of a column of some 6 sigma, range / 15 / 2
# in 4 bits. Sixty-four terms of unit variance add up to 8 sigma of that; activations are rounded to int8 as well.
@pytest.mark.parametrize(
    ("kind", "label", "named", "error"),
    [
        (q.quantize_weights, "INT4", "int4 b32 a4", 3.0),
        (partial(q.quantize_weights, bits=8), "INT8", "int8 b32 a4", 0.4),
        (q.quantize_dynamic, "INT8", "dynamic int8", 0.4),
    ],
)
def test_every_kind_loads_and_is_near(product: Path, kind, label: str, named: str, error: float):
    target = kind(product, product.with_name("small.onnx"))
    graph = read_graph(target)
    assert (quant_label(graph), quantization(graph)) == (label, named)
    assert lint(target) == []
    with OnnxSession(target) as session:
        got = session.run({"x": X})[0]
    assert 0 < np.abs(got - X @ WEIGHT).max() < error
    assert sorted(p.name for p in product.parent.iterdir() if "small" in p.name)[0] == "small.onnx"


def test_bytes_of_four_bit_blocks(product: Path):
    target = q.quantize_weights(product, product.with_name("small.onnx"), bits=4)
    # 64 x 32 weights at 4 bits are 1,024 bytes; 64/32 x 32 = 64 scales of 4 bytes are 256.
    assert read_graph(target).weight_bytes == 1024 + 256


def test_external_data_keeps_every_value(product: Path):
    target = product.with_name("outside.onnx")
    q.save(q.load(product), target)
    assert [t.location for t in read_graph(target).tensors] == ["outside.onnx.data"]
    assert size_bytes(target) == target.stat().st_size + WEIGHT.nbytes
    with OnnxSession(target) as session, OnnxSession(product) as inline:
        assert np.array_equal(session.run({"x": X})[0], inline.run({"x": X})[0])
    q.save(q.load(target), target)  # onto itself: nothing is appended
    assert size_bytes(target) == target.stat().st_size + WEIGHT.nbytes


def test_quantizer_refuses(product: Path, tmp_path: Path):
    target = tmp_path / "t.onnx"
    with pytest.raises(RefusedError, match="4 or 8"):
        q.quantize_weights(product, target, bits=5)
    with pytest.raises(BadDataError, match="no such file"):
        q.quantize_weights(tmp_path / "none.onnx", target)
    assert not target.exists()


def test_quantizers_leave_the_log_as_it_was(product: Path):
    before = logging.root.manager.disable
    q.quantize_weights(product, product.with_name("s.onnx"))
    assert logging.root.manager.disable == before


def test_profile_by_operation(product: Path, tmp_path: Path):
    with OnnxSession(product, profile=tmp_path / "profile") as session:
        for _ in range(3):
            session.run({"x": X})
        events = node_events(Path(session.raw.end_profiling()))
    assert [e.op_type for e in events] == ["MatMul"] * 3
    assert all(e.duration_s >= 0 for e in events)
    with pytest.raises(BadDataError, match="a profile written by"):
        node_events(product)
