"""Image towers: their tokens by the rule of their makers, their bytes in the memory that a model needs."""

import pytest

from harness.answer.case import Case
from harness.answer.resolve import resolve_model
from harness.answer.ways import image_s, in_memory, ways
from harness.core.paths import table_rows
from harness.core.prediction import Interval, PartKind
from harness.core.scenario import Scenario
from harness.core.way import WayKind
from harness.hardware.devices import load_device
from harness.models.vision import tower_of

PIXELS_A_TOKEN = {"qwen2.5-vl": 28, "kimi-k2": 28, "qwen3-vl": 32, "qwen3.5": 32, "qwen3.6": 32}


def test_tokens_of_an_image_are_those_of_the_makers_rule() -> None:
    asked = 0
    for row in table_rows("models", "vision"):
        for family, pixels in PIXELS_A_TOKEN.items():
            if row["name"].startswith(family):
                asked += 1
                assert int(row["tokens"]) == round(1024 / pixels) ** 2, row
                assert int(row["patches"]) == 4 * int(row["tokens"]), row
    assert asked > 15


@pytest.mark.parametrize(
    ("name", "model", "size"),
    [
        ("qwen2.5vl:7b", "qwen2.5-vl-7b", 1_395_864_371),
        ("unsloth/Qwen3-VL-30B-A3B-Instruct-GGUF:Q4_K_M", "qwen3-vl-30b-a3b", 1_068_000_000),
        ("gemma3:4b", "gemma-3-4b", 851_251_104),
        ("medgemma-4b", "gemma-3-4b", 851_251_104),
    ],
)
def test_a_name_finds_its_tower(name: str, model: str, size: int) -> None:
    tower = resolve_model(name).tower
    assert tower is not None
    assert (tower.model, tower.file_bytes) == (model, size)


@pytest.mark.parametrize("name", ["llama-3.1-8b", "qwen3-8b", "gemma-3-1b"])
def test_what_only_reads_has_none(name: str) -> None:
    assert tower_of(name, name) is None


def test_a_tower_nobody_measured_is_said_to_be_left_out() -> None:
    model = resolve_model("llava:7b")
    assert model.tower_bytes == 0
    assert any("comes on top" in note for note in model.notes)


def test_scratch_of_a_tower_of_unknown_widths_is_a_third_of_its_file_and_said_so() -> None:
    model = resolve_model("lfm2-vl-450m")
    parts = in_memory(Case.of(model, load_device("rtx-4060-desktop"), Scenario())).memory.parts
    assert next(p.anonymous_bytes for p in parts if p.kind is PartKind.IMAGE_BUFFER) == round(193_357_414 / 3)
    assert any("estimated" in note for note in model.notes)


def test_a_tower_lies_on_the_card_beside_the_model_and_a_split_leaves_it_room() -> None:
    card = load_device("rtx-4060-desktop")
    text, sees = resolve_model("qwen2.5-7b"), resolve_model("qwen2.5-vl-7b")
    held = [sum(p.anonymous_bytes for p in in_memory(Case.of(m, card, Scenario())).memory.parts if p.pool == "vram")
            for m in (text, sees)]  # fmt: skip
    assert held[1] - held[0] == sees.tower_bytes + 4 * 46 * 46 * 1280 * 11.5 * 4  # and its scratch, warmed up

    best = ways(Case.of(resolve_model("qwen2.5-vl-32b"), card, Scenario()))[0]
    assert best.kind is WayKind.LAYERS
    assert best.prediction.verdict.needed_bytes <= best.prediction.verdict.available_bytes


def test_an_image_takes_its_tokens_and_what_the_tower_computes() -> None:
    """5,476 patches x (2 x 698 M weights + 4 x 5,476 x 1,280 x 4 of attention) over 2 x 7.07 G of a prompt's token."""
    model = resolve_model("qwen2.5-vl-7b")
    took = image_s(model, Scenario(), Interval(mid=1000, low=1000, high=1000))
    assert took is not None
    weights = sum(
        t.element_count for t in model.weights.tensors if t.name not in {"token_embd.weight", "output.weight"}
    )
    tower = 5476 * (1_395_864_371 + 4 * 5476 * 1280 * 4) / (2 * weights)
    assert took.low == pytest.approx(1.369)
    assert took.mid == pytest.approx((1369 + tower) / 1000, rel=0.01)
    assert took.high == pytest.approx((1369 + 2 * tower) / 1000, rel=0.01)


def test_a_draft_beside_a_model_leaves_a_split_that_fits() -> None:
    card = load_device("rtx-4060-desktop")
    asked = ways(Case.of(resolve_model("qwen3-32b"), card, Scenario())._replace(draft=resolve_model("qwen3-0.6b")))[0]
    assert asked.kind is WayKind.LAYERS
