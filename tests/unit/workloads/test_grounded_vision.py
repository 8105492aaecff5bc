"""Regions of pictures: boxes that are none are refused, and made words are read from their regions."""

import pytest

from harness.errors import BadDataError, RefusedError
from harness.workloads.grounded_vision import SYSTEM, checked
from harness.workloads.parts import Parts
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
    cases = [{"kind": "read"}, {"kind": "find"}]
    answers = [{"right": ["ABCD", "EFGH"], "texts": ["AB CD", "EFGX"]}, {"right": ["ABCD"], "texts": ["XYZ", "ABCD"]}]
    score = SYSTEM.score(cases, answers)
    assert (score["read"]["mid"], score["find"]["mid"]) == (0.5, 1)


def test_made_words_are_read_from_regions_and_not_from_a_small_copy(tmp_path):
    pytest.importorskip("rapidocr")
    size = SYSTEM.sizes["small"]
    state = SYSTEM.prepare(Parts(), size, Context(tmp_path, tmp_path))
    cases = SYSTEM.cases(size, 1)
    score = SYSTEM.score(cases, [SYSTEM.step(state, case) for case in cases])
    assert score["read"]["mid"] >= 0.75
    assert score["copy"]["mid"] < score["read"]["mid"]
    with pytest.raises(BadDataError, match="a picture"):
        SYSTEM.step(state, {"kind": "read", "image": str(tmp_path / "none.png"), "regions": [[0, 0, 1, 1]]})
