"""Regions of pictures: boxes that are none are refused, and made words are read from their regions."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.core.errors import BadDataError
from harness.workloads.see import SYSTEM, Copy, ReadPicture, made, pixels
from harness.workloads.system import Context
from harness.workloads.system_parts import SystemParts


def test_a_box_is_cut_at_whole_pixels():
    assert pixels((0.1, 0.2, 0.5, 0.4), (100, 50)) == [10, 10, 50, 20]


@pytest.mark.parametrize("box", [(0.5, 0.5, 0.5, 0.6), (0.6, 0.1, 0.4, 0.2), (0, 0, 0.001, 1)])
def test_a_box_that_holds_no_pixel_is_refused(box):
    with pytest.raises(BadDataError, match="left < right"):
        pixels(box, (100, 50))


@pytest.mark.parametrize("box", ["[0, 0, 1920, 1080]", "[-0.1, 0, 0.5, 0.5]", "[0, 0, 1]"])
def test_what_is_no_box_is_named_by_its_line(tmp_path, box):
    path = tmp_path / "mine.jsonl"
    path.write_text(f'{{"kind": "read", "image": "a.png", "box": {box}}}')
    with pytest.raises(BadDataError, match=r"mine.jsonl:1.*box"):
        SYSTEM.read(path)


def test_texts_are_compared_without_blanks():
    pytest.importorskip("PIL", reason="the vision extra is not installed")
    right = [made(seed, 640)[2] for seed in (1, 2)]
    lines = iter([[right[0][:3] + " " + right[0][3:]], None, ["x"]])
    context = Context(SystemParts(), {"image_px": 640}, Path())
    state = (context, lambda _picture, **_: SimpleNamespace(txts=next(lines)))
    cases = [ReadPicture(seed=1), ReadPicture(seed=2), Copy(seed=1)]
    (score,) = SYSTEM.score(cases, [SYSTEM.step(state, SYSTEM.ready(state, case)) for case in cases])
    # the first is read rightly, nothing is read in the second, something else in the small copy
    assert (score.value, score.nulls) == (0.5, {"a small copy": 0.0})


def test_made_words_are_read_from_their_part_and_not_from_a_small_copy(tmp_path):
    pytest.importorskip("rapidocr")
    size = SYSTEM.sizes["small"]
    state = SYSTEM.prepare(Context(SystemParts(), size, tmp_path))
    cases = SYSTEM.cases(size)
    (score,) = SYSTEM.score(cases, [SYSTEM.step(state, SYSTEM.ready(state, case)) for case in cases])
    assert score.value >= 0.75 and score.beats_null
    with pytest.raises(BadDataError, match="a picture"):
        SYSTEM.ready(state, ReadPicture(image=str(tmp_path / "none.png")))
