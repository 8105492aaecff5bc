"""Regions of pictures: boxes that are none are refused, and made words are read from their regions."""

from types import SimpleNamespace

import pytest

from harness.errors import BadDataError, RefusedError
from harness.workloads.parts import Parts
from harness.workloads.see import SYSTEM, Look, SeeState, crops, made
from harness.workloads.system import Context

PICTURE = SimpleNamespace(size=(100, 50), crop=lambda box: box)


def test_regions_are_cut_at_whole_pixels():
    assert crops(PICTURE, [(0.1, 0.2, 0.5, 0.4), (0, 0, 0.001, 1)]) == [(10, 10, 50, 20), (0, 0, 1, 50)]


@pytest.mark.parametrize(
    "box", [(0, 0, 1920, 1080), (0.5, 0.5, 0.5, 0.6), (0.6, 0.1, 0.4, 0.2), (-0.1, 0, 0.5, 0.5), (0, 0, 1)]
)
def test_a_box_that_is_none_is_named(box):
    with pytest.raises(BadDataError, match=r"\[1\]"):
        crops(PICTURE, [(0, 0, 1, 1), box])


@pytest.mark.parametrize("count", [0, 17])
def test_no_region_and_too_many_are_refused(count):
    with pytest.raises(RefusedError, match="1 to 16"):
        crops(PICTURE, [(0, 0, 1, 1)] * count)


def test_texts_are_compared_without_blanks():
    pytest.importorskip("PIL", reason="the vision extra is not installed")
    right = made(1, 640)[2]
    lines = iter([[right[0][:3] + " " + right[0][3:]], None, [right[1]], [right[3]]])

    def engine(picture, *, use_det, **_):
        return SimpleNamespace(txts=["no such text", *right[:3]] if use_det else next(lines))

    state = SeeState(engine, 100, 640, Parts())
    cases = [Look(how="read", seed=1), Look(how="find", seed=1)]
    score = {one.group: one.value for one in SYSTEM.score(cases, [SYSTEM.step(state, case) for case in cases])}
    # of the four regions the first and the last are read rightly; in the whole picture the last is missed
    assert (score["read"], score["find"]) == (0.5, 0.75)


def test_made_words_are_read_from_regions_and_not_from_a_small_copy(tmp_path):
    pytest.importorskip("rapidocr")
    size = SYSTEM.sizes["small"]
    state = SYSTEM.prepare(Parts(), size, Context(tmp_path, tmp_path))
    cases = SYSTEM.cases(size, 1)
    score = {one.group: one for one in SYSTEM.score(cases, [SYSTEM.step(state, case) for case in cases])}
    assert score["read"].value >= 0.75
    assert score["read"].nulls == {"a small copy": score["copy"].value} and score["read"].beats_null
    with pytest.raises(BadDataError, match="a picture"):
        SYSTEM.step(state, Look(how="read", image=str(tmp_path / "none.png"), regions=[[0.0, 0.0, 1.0, 1.0]]))
