"""Regions of pictures: boxes that are none are refused, and made words are read from their regions."""

from types import SimpleNamespace

import pytest

from harness.errors import BadDataError, RefusedError
from harness.workloads.grounded_vision import SYSTEM, VisionState, checked, made
from harness.workloads.parts import SystemParts
from harness.workloads.system import Context


@pytest.mark.parametrize(
    "box", [(0, 0, 1920, 1080), (0.5, 0.5, 0.5, 0.6), (0.6, 0.1, 0.4, 0.2), (-0.1, 0, 0.5, 0.5), (0, 0, 1), "left"]
)
def test_a_box_that_is_none_is_named(box):
    with pytest.raises(BadDataError, match=r"\[1\]"):
        checked([(0, 0, 1, 1), box])


@pytest.mark.parametrize("count", [0, 17])
def test_no_region_and_too_many_are_refused(count):
    with pytest.raises(RefusedError, match="1 to 16"):
        checked([(0, 0, 1, 1)] * count)


def test_texts_are_compared_without_blanks():
    pytest.importorskip("PIL", reason="the vision extra is not installed")
    right = made(1, 640)[2]
    lines = iter([[right[0][:3] + " " + right[0][3:]], None, [right[1]], [right[3]]])

    def engine(picture, *, use_det, **_):
        return SimpleNamespace(txts=["no such text", *right[:3]] if use_det else next(lines))

    state = VisionState(engine, copy_px=100, image_px=640)
    cases = [{"kind": "read", "seed": 1}, {"kind": "find", "seed": 1}]
    score = SYSTEM.score(cases, [SYSTEM.step(state, case) for case in cases])
    # of the four regions the first and the last are read rightly; in the whole picture the last is missed
    assert (score["read"]["mid"], score["find"]["mid"]) == (0.5, 0.75)


def test_made_words_are_read_from_regions_and_not_from_a_small_copy(tmp_path):
    pytest.importorskip("rapidocr")
    size = SYSTEM.sizes["small"]
    state = SYSTEM.prepare(SystemParts(), size, Context(tmp_path, tmp_path))
    cases = SYSTEM.cases(size, 1)
    score = SYSTEM.score(cases, [SYSTEM.step(state, case) for case in cases])
    assert score["read"]["mid"] >= 0.75
    assert score["copy"]["mid"] < score["read"]["mid"]
    with pytest.raises(BadDataError, match="a picture"):
        SYSTEM.step(state, {"kind": "read", "image": str(tmp_path / "none.png"), "regions": [[0, 0, 1, 1]]})
