"""Regions of pictures: boxes that are none are refused, and made words are read from their regions."""

from types import SimpleNamespace

import pytest

from harness.errors import BadDataError
from harness.workloads.parts import Parts
from harness.workloads.see import SYSTEM, Copy, Read, SeeState, made, pixels
from harness.workloads.system import Context, read_cases


def test_regions_are_cut_at_whole_pixels():
    assert pixels((0.1, 0.2, 0.5, 0.4), (100, 50)) == (10, 10, 50, 20)
    assert pixels((0, 0, 0.001, 1), (100, 50)) == (0, 0, 1, 50)


@pytest.mark.parametrize("box", [(0.5, 0.5, 0.5, 0.6), (0.6, 0.1, 0.4, 0.2)])
def test_a_box_that_is_the_wrong_way_round_is_refused(box):
    with pytest.raises(BadDataError, match="left < right"):
        pixels(box, (100, 50))


@pytest.mark.parametrize(
    "regions", ["[[0, 0, 1920, 1080]]", "[[-0.1, 0, 0.5, 0.5]]", "[[0, 0, 1]]", f"{[[0, 0, 1, 1]] * 17}"]
)
def test_what_is_no_box_is_named_by_its_line(tmp_path, regions):
    path = tmp_path / "mine.jsonl"
    path.write_text(f'{{"kind": "read", "image": "a.png", "regions": {regions}}}')
    with pytest.raises(BadDataError, match=r"mine.jsonl:1.*regions"):
        read_cases(path, SYSTEM)


def test_texts_are_compared_without_blanks():
    pytest.importorskip("PIL", reason="the vision extra is not installed")
    right = made(1, 640)[2]
    lines = iter([[right[0][:3] + " " + right[0][3:]], None, [right[1]], [right[3]]])

    state = SeeState(lambda _picture, **_: SimpleNamespace(txts=next(lines)), 640, Parts())
    cases = [Read(seed=1), Copy(seed=1)]
    answers = [SYSTEM.step(state, cases[0]), {"hits": [False, False, False, True]}]
    (score,) = SYSTEM.score(cases, answers)
    # of the four regions the first and the last are read rightly; of the small copy one
    assert (score.value, score.nulls) == (0.5, {"a small copy": 0.25})


def test_made_words_are_read_from_regions_and_not_from_a_small_copy(tmp_path):
    pytest.importorskip("rapidocr")
    size = SYSTEM.sizes["small"]
    state = SYSTEM.prepare(Parts(), size, Context(tmp_path, tmp_path))
    cases = SYSTEM.cases(size, 1)
    (score,) = SYSTEM.score(cases, [SYSTEM.step(state, case) for case in cases])
    assert score.value >= 0.75 and score.beats_null
    with pytest.raises(BadDataError, match="a picture"):
        SYSTEM.step(state, Read(image=str(tmp_path / "none.png"), regions=[[0.0, 0.0, 1.0, 1.0]]))
