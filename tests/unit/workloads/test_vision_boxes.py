"""Boxes: what is refused and named, overlaps by hand, windows of an image and where their cells lie."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import BadDataError
from harness.workloads.grounded_vision import boxes, images

shares = st.floats(0, 1, allow_nan=False, width=32)


@st.composite
def fine_boxes(draw):
    x = sorted(draw(st.lists(shares, min_size=2, max_size=2, unique=True)))
    y = sorted(draw(st.lists(shares, min_size=2, max_size=2, unique=True)))
    return (x[0], y[0], x[1], y[1])


@settings(deadline=None)
@given(st.lists(fine_boxes(), max_size=16))
def test_boxes_inside_are_taken_as_they_are(table):
    found = boxes.checked(table)
    assert found.shape == (len(table), 4)
    assert np.array_equal(found, np.array(table).reshape(-1, 4))


@settings(deadline=None)
@given(
    st.lists(fine_boxes(), max_size=5),
    st.tuples(*[st.floats(allow_nan=True, allow_infinity=True)] * 4),
    st.lists(fine_boxes(), max_size=5),
)
def test_a_box_is_taken_exactly_when_it_is_one_and_the_first_bad_one_is_named(before, box, after):
    is_box = 0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1
    if is_box:
        assert len(boxes.checked([*before, box, *after])) == len(before) + 1 + len(after)
        return
    with pytest.raises(BadDataError) as caught:
        boxes.checked([*before, box, *after])
    assert caught.value.field == f"[{len(before)}]"


@pytest.mark.parametrize(
    ("table", "word"),
    [
        ([(0, 0, 1920, 1080)], r"\[0\]: found \(0, 0, 1920, 1080\)"),
        ([(0, 0, 1, 1), (0.5, 0.5, 0.5, 0.6)], r"\[1\]"),
        ([(0.1, 0.1, 0.2)], "shape"),
        ([(0.1, 0.1, 0.2, "x")], "four numbers"),
        ([(0, 0, 1, 1)] * 17, "17 boxes"),
    ],
)
def test_what_is_no_table_of_boxes_says_why(table, word):
    with pytest.raises(BadDataError, match=word):
        boxes.checked(table)


def test_no_box_is_fine():
    assert boxes.checked([]).shape == boxes.checked(np.empty((0, 4))).shape == (0, 4)


def test_overlap_by_hand():
    a = np.array([[0, 0, 0.5, 0.5], [0, 0, 1, 1.0]])
    b = np.array([[0.25, 0.25, 0.75, 0.75], [0.6, 0.6, 0.7, 0.7], [0, 0, 0.5, 0.5]])
    # (1/4 x 1/4) / (1/4 + 1/4 - 1/16) = 1/7; the second does not meet the first; the whole image: area over 1.
    assert boxes.iou(a, b) == pytest.approx(np.array([[1 / 7, 0, 1], [0.25, 0.01, 0.25]]))


@settings(deadline=None)
@given(st.lists(fine_boxes(), min_size=1, max_size=8))
def test_overlap_is_symmetric_bounded_and_one_with_itself(table):
    found = boxes.iou(np.array(table), np.array(table))
    assert np.allclose(found, found.T)
    assert ((found >= 0) & (found <= 1 + 1e-9)).all()
    wide = [i for i, b in enumerate(table) if (b[2] - b[0]) * (b[3] - b[1]) > 1e-30]
    assert np.allclose(found[wide, wide], 1)


def test_a_wide_image_lies_in_the_middle_and_its_padding_is_masked():
    image = np.full((50, 100, 3), 128, np.uint8)
    pixels, where = images.place(image, (0, 0, 1, 1), 64)
    # Scale 64 / 100: 32 rows of 64, 16 of padding above and below.
    assert where.content == (0, 0.25, 1, 0.75)
    assert (pixels[:, :16] == 0).all() and (pixels[:, 48:] == 0).all()
    grey = [(128 / 255 - m) / d for m, d in zip(*images.IMAGENET, strict=True)]
    assert pixels[:, 16:48] == pytest.approx(np.array(grey)[:, None, None].repeat(32, 1).repeat(64, 2), abs=1e-5)
    cells, inside = where.grid(4)
    assert inside.reshape(4, 4).all(axis=1).tolist() == [False, True, True, False]
    # The second row of cells is the upper half of the image, in its own coordinates.
    assert cells[4] == pytest.approx([0, 0, 0.25, 0.5])
    assert cells[11] == pytest.approx([0.75, 0.5, 1, 1])


@settings(deadline=None)
@given(fine_boxes(), st.integers(1, 300), st.integers(1, 300))
def test_a_window_holds_its_box_and_keeps_its_aspect(box, width, height):
    image = np.zeros((height, width, 3), np.uint8)
    pixels, where = images.place(image, box, 32)
    assert pixels.shape == (3, 32, 32)
    assert np.isfinite(pixels).all()
    x0, y0, x1, y1 = where.window
    assert x0 <= box[0] + 1e-6 and y0 <= box[1] + 1e-6 and x1 >= box[2] - 1e-6 and y1 >= box[3] - 1e-6
    assert (x1 - x0) * width >= 1 - 1e-9 and (y1 - y0) * height >= 1 - 1e-9
    wide, tall = round((x1 - x0) * width), round((y1 - y0) * height)  # whole pixels: halves round as they do there
    shown = ((where.content[2] - where.content[0]) * 32, (where.content[3] - where.content[1]) * 32)
    assert max(shown) == pytest.approx(32)
    # Rounded to whole pixels, at least one.
    assert min(shown) == pytest.approx(max(1, min(wide, tall) * 32 / max(wide, tall)), abs=0.5 + 1e-6)
    content = np.array([where.content])
    assert where.to_image(content)[0] == pytest.approx(where.window, abs=1e-6)


def test_resize_weights_by_hand():
    # Twice as many: Pillow's bilinear repeats the edge and mixes 3:1.
    assert images.resize_weights(2, 4) == pytest.approx(np.array([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]))
    # Half as many: a triangle of half-width 2 around 1.0 has taps at .5, 1.5, 2.5: 3/4, 3/4, 1/4 (cut at the edge).
    assert images.resize_weights(4, 2)[0] == pytest.approx(np.array([3, 3, 1, 0]) / 7)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 90), st.integers(1, 90))
def test_resizing_in_bands_is_the_whole_product(rows, columns, height, width):
    image = np.random.default_rng(rows).integers(0, 256, (rows, columns, 3), np.uint8)
    down, across = images.resize_weights(rows, height), images.resize_weights(columns, width)
    wanted = np.einsum("hr,rcx,wc->hwx", down, image.astype(np.float64), across)
    assert np.abs(images.resize(image, height, width) - wanted).max() < 1e-3


@pytest.mark.parametrize(
    ("image", "word"),
    [
        (np.zeros((4, 4), np.uint8), "RGB"),
        (np.zeros((4, 4, 3), np.float32), "uint8"),
        (np.zeros((0, 4, 3), np.uint8), "empty"),
        ("picture.png", "str"),
    ],
)
def test_what_is_no_image_is_refused(image, word):
    with pytest.raises(BadDataError, match=word):
        images.checked_image(image)
