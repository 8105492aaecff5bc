"""Tokens of regions on a small graph, text boxes by hand, and what the networks cost."""

import numpy as np
import pytest

from harness.catalog import fetch_registry
from harness.errors import BadDataError, FetchError, RefusedError
from harness.workloads.grounded_vision import WORKLOAD, cost, encoder, reading, study

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("scipy")


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """Instead of DINOv2-S: the mean of each patch of 14 x 14 pixels, times 384 fixed numbers, under the same names."""
    from onnx import TensorProto, helper, numpy_helper

    kernel = np.random.default_rng(3).standard_normal((384, 3, 1, 1)).astype(np.float32)
    kernel = np.broadcast_to(kernel / (14 * 14), (384, 3, 14, 14)).copy()
    nodes = [
        helper.make_node("Conv", ["input_image", "kernel"], ["map"], strides=[14, 14]),
        helper.make_node("Reshape", ["map", "shape"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["/Slice_output_0"], perm=[0, 2, 1]),
    ]
    ports = [
        helper.make_tensor_value_info("input_image", TensorProto.FLOAT, ["n", 3, 224, 224]),
        helper.make_tensor_value_info("/Slice_output_0", TensorProto.FLOAT, ["n", 256, 384]),
    ]
    shape = numpy_helper.from_array(np.array([0, 384, 256]), "shape")
    stored = [numpy_helper.from_array(kernel, "kernel"), shape]
    made = helper.make_graph(nodes, "patches", ports[:1], ports[1:], stored)
    path = tmp_path_factory.mktemp("graph") / "patches.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


@pytest.fixture(scope="module")
def patches(graph):
    found = encoder.GroundedEncoder(graph)
    yield found
    found.close()


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(1).integers(0, 256, (90, 120, 3), np.uint8)


def some_boxes(count):
    low = np.random.default_rng(2).uniform(0, 0.7, (count, 2))
    return np.concatenate([low, low + 0.25], axis=1)


def test_one_session_serves_no_region_to_sixteen_and_none_disturbs_another(patches, image):
    boxes = some_boxes(16)
    whole = patches.encode(image, boxes)
    for count in range(17):
        part = patches.encode(image, boxes[:count])
        assert len(part.tokens) == 256 + count
        assert part.regions.tolist() == [-1] * 256 + list(range(count))
        assert np.allclose(part.tokens, whole.tokens[: len(part.tokens)], atol=1e-5)


def test_a_region_is_the_mean_of_its_cells_and_cells_without_image_are_masked(patches, image):
    boxes = some_boxes(1)
    features = patches.run(patches.pack(image, boxes)[0])
    found = patches.encode(image, boxes)
    assert np.allclose(found.tokens[256, :384], features[1].mean(axis=0), atol=1e-6)
    # 120 x 90 pixels in a square of 16 x 16 cells: two rows of padding above and below.
    assert found.mask[:256].reshape(16, 16).all(axis=1).tolist() == [False] * 2 + [True] * 12 + [False] * 2
    assert found.mask[256]
    assert not found.tokens[~found.mask].any()


@pytest.mark.parametrize("bad", [(0, 0, 1920, 1080), (0.5, 0.5, 0.5, 0.6), (np.nan, 0, 1, 1)])
def test_a_bad_box_is_named(patches, image, bad):
    with pytest.raises(BadDataError, match=r"boxes: \[1\]"):
        patches.encode(image, [(0.1, 0.1, 0.2, 0.2), bad])


def test_position_of_a_box_by_hand():
    found = encoder.position_features(np.array([0.0, 0.0, 1.0, 0.5]))
    # centre (.5, .25), size (1, .5): the first octave of each is pi p
    sines = found[:24].reshape(4, 6)
    assert np.allclose(sines[:, 0], np.sin(np.pi * np.array([0.5, 0.25, 1.0, 0.5])), atol=1e-6)
    assert np.allclose(found[24:].reshape(4, 6)[:, 1], np.cos(2 * np.pi * np.array([0.5, 0.25, 1.0, 0.5])), atol=1e-6)


def test_boxes_of_text_by_hand():
    likely = np.zeros((40, 100), np.float32)
    likely[10:14, 20:40] = 0.9  # 4 x 20: widened by 80 x 1.6 / 48 = 2.67 pixels on each side
    likely[30:34, 60:70] = 0.4  # too unsure
    likely[2:4, 2:4] = 0.9  # too small
    (box,) = reading.boxes_of(likely)
    more = 80 * 1.6 / 48
    assert box.tolist() == pytest.approx([(20 - more) / 100, (10 - more) / 40, (40 + more) / 100, (14 + more) / 40])
    assert reading.boxes_of(np.zeros((8, 8), np.float32)).shape == (0, 4)


def test_the_rank_statistic_by_hand():
    # positives .8 and .4 against .6, .4 and .1: 3 + 1.5 of 6 pairs
    scores, labels = np.array([0.8, 0.4, 0.6, 0.4, 0.1]), np.array([1, 1, 0, 0, 0], bool)
    assert study.auroc(scores, labels) == pytest.approx(4.5 / 6)


def test_paired_difference_draws_whole_pictures():
    found = study.paired_difference([[True, True], [True, False]], [[False, True], [True, False]])
    assert found["mean"] == 0.25
    assert found["low"] <= 0.25 <= found["high"]


def test_network_has_the_published_size():
    # DINOv2 ViT-S/14: 21 M parameters (Oquab et al. 2023)
    assert cost.parameter_count() == pytest.approx(21e6, rel=0.06)
    one, three = cost.encoder_cost(1), cost.encoder_cost(3)

    def flops(network):
        return sum(k.flops_count for k in network.kernels if k.kind in {"product", "convolution", "depthwise"})

    layers = sum(k.flops_count for k in one.kernels if k.kind == "product" and k.dim == 257) / 2
    assert layers == 12 * 12 * 257 * 384**2  # 12 layers of 12 d^2 weights, each met by every token
    assert flops(three) == pytest.approx(3 * flops(one), rel=0.01)
    # PP-OCRv6 small at 640 x 640, by shape inference of its file: 8.666 GFLOP
    assert flops(cost.finder_cost(640 * 640)) == pytest.approx(8.666e9, rel=0.01)


@pytest.mark.parametrize(
    ("change", "word"),
    [({"weight_bits": 5}, "weight_bits 5"), ({"region_count": 17}, "17 regions"), ({"image_px": 100}, "image_px 100")],
)
def test_sizes_that_cannot_be_are_refused(change, word):
    with pytest.raises(RefusedError, match=word):
        WORKLOAD.costs({**WORKLOAD.sizes["default"], **change})


@pytest.mark.parametrize("name", sorted(WORKLOAD.sizes))
def test_every_size_declares_its_operations(name):
    names = [c.operation for c in WORKLOAD.costs(WORKLOAD.sizes[name])]
    assert names == ["encode", "cut", "find text", "read a line", "track"]


def test_a_package_that_is_not_there_is_told(tmp_path):
    with pytest.raises(FetchError, match="pip could not fetch"):
        fetch_registry.wheel_members("edge-harness-no-such-package==9.9.9", {"x": ""}, tmp_path)


@pytest.mark.slow
def test_words_on_photographs_are_read(tmp_path):
    """The real networks and pictures: regions read more than a copy of as many pixels."""
    pytest.importorskip("skimage")
    from harness.catalog.paths import cache_dir

    found = study.compare(cache_dir() / "vision", picture_count=8)
    assert found["read"]["regions"]["share"] > found["read"]["base"]["share"]
    assert found["cell_auroc"] > 0.6
