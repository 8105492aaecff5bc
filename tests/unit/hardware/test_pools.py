"""A pool says what it is, and the api that is asked for answers, or the first line says that it does not."""

from pathlib import Path

import pytest

from harness.answer.answer import answer
from harness.core.errors import BadDataError
from harness.core.question import Question
from harness.hardware.devices import load_device
from harness.show.first_screen import sentence

ROOT = Path(__file__).parents[3]
PHONE = (ROOT / "devices" / "galaxy-s26.toml").read_text(encoding="utf-8")
NPU = """
[[pool]]
name = "npu"
is_own = true
words = "the NPU's memory"
technology = "LPDDR5X"
total_gib = { value = 8, source = "maker", confidence = "secondary" }
usable_gib = { value = 7, source = "maker", confidence = "secondary" }
bandwidth_gb_s = { value = 200, source = "maker", confidence = "secondary" }

[[engine]]
kind = "npu"
name = "Toy NPU"
pool = "npu"
apis = ["npu"]
"""


@pytest.fixture
def board(tmp_path: Path) -> Path:
    path = tmp_path / "board-npu.toml"
    without = PHONE.replace('apis = ["npu"]', 'apis = ["sycl"]')  # its own NPU computes from RAM
    path.write_text(without + NPU, encoding="utf-8")
    return path


def test_a_pool_of_a_kind_nobody_knew_is_one_file(board: Path) -> None:
    device = load_device(str(board))
    assert device.has_own_memory("npu")
    assert not device.has_own_memory("cpu")
    found = answer(Question(model="llama-3.2-1b", device=str(board), api="npu"))
    assert {part.pool for part in found.prediction.memory.parts} == {"npu", "ram"}
    assert "all of it in the NPU's memory" in sentence(found)
    assert found.prediction.verdict.available_bytes == 7 * 2**30


def test_what_has_no_room_in_the_pool_says_so_by_its_words(board: Path) -> None:
    found = answer(Question(model="qwen3-14b", quant="Q8_0", device=str(board), api="npu"))
    assert "npu" in sentence(found)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('name = "npu"\nis_own', 'name = "ram"\nis_own', "pool ram: found two pools of that name"),
        ('pool = "npu"', 'pool = "nqu"', "'nqu', expected one of ram, npu"),
        ("is_own = true", 'is_own = "yes"', "is_own"),
        ('words = "the', 'wrods = "the', "wrods"),
    ],
)
def test_a_typo_in_a_pool_is_named(board: Path, old: str, new: str, named: str) -> None:
    board.write_text(board.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(BadDataError, match=named) as told:
        load_device(str(board))
    assert "board-npu.toml" in str(told.value)


@pytest.mark.parametrize("model", ["llama-3.2-1b", "llama-3.1-8b", "qwen3-30b-a3b"])
@pytest.mark.parametrize("name", ["galaxy-s22", "galaxy-s26", "gtx-1050-ti-desktop", "ipad-pro-m1-16gb", "strix-halo"])
def test_the_api_that_is_asked_for_answers_or_the_sentence_says_that_it_does_not(name: str, model: str) -> None:
    for api in (api for engine in load_device(name).engines for api in engine.apis):
        found = answer(Question(model=model, device=name, api=api))
        if found.prediction.api != api:
            assert f"{api} " in sentence(found), (api, sentence(found))
