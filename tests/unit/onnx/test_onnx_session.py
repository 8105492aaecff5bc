"""Sessions on small real graphs, run by the real engine; how weights of fewer bits are named."""

from pathlib import Path

import numpy as np
import pytest

from harness.core.errors import BadDataError, EngineError, RefusedError
from harness.onnx.files import quant_label, quantization, size_bytes
from harness.onnx.graph import read_graph
from harness.onnx.ort_session import OnnxSession
from tests.tiny_onnx import quantize, store

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


def test_a_session_runs_and_ignores_inputs_that_the_graph_lacks(product: Path):
    with OnnxSession(product, thread_count=2, prepack=False) as session:
        assert np.allclose(session.run({"x": X, "unknown": 1})[0], X @ WEIGHT, atol=1e-5)
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
    ("bits", "label", "named", "error"), [(4, "INT4", "int4 b32 a4", 3.0), (8, "INT8", "int8 b32 a4", 0.4)]
)
def test_what_a_quantizer_wrote_is_named(product: Path, bits: int, label: str, named: str, error: float):
    quantize(product, bits)
    graph = read_graph(product)
    assert (quant_label(graph), quantization(graph)) == (label, named)
    with OnnxSession(product) as session:
        result = session.run({"x": X})[0]
    assert 0 < np.abs(result - X @ WEIGHT).max() < error


def test_dynamic_quantisation_is_named(product: Path):
    from onnxruntime.quantization import QuantType, quantize_dynamic

    target = product.with_name("small.onnx")
    quantize_dynamic(str(product), str(target), weight_type=QuantType.QInt8)
    assert quantization(read_graph(target)) == "dynamic int8"


def test_bytes_of_four_bit_blocks(product: Path):
    quantize(product, 4)
    # 64 x 32 weights at 4 bits are 1,024 bytes; 64/32 x 32 = 64 scales of 4 bytes are 256.
    assert sum(tensor.size_bytes for tensor in read_graph(product).tensors) == 1024 + 256


def test_external_data_keeps_every_value(product: Path):
    target = product.with_name("outside.onnx")
    store(onnx.load(product), target)
    assert [t.location for t in read_graph(target).tensors] == ["outside.onnx.data"]
    assert size_bytes(target) == target.stat().st_size + WEIGHT.nbytes
    with OnnxSession(target) as session, OnnxSession(product) as inline:
        assert np.array_equal(session.run({"x": X})[0], inline.run({"x": X})[0])
