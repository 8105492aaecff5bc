"""Which split is best, against a search of every step, and what programs do that fit a model by themselves."""

from collections.abc import Iterator

import pytest

from harness.answer.resolve import resolve_device
from harness.core.device import Device
from harness.core.model import Weights
from harness.core.placement import Placement
from harness.core.scenario import Scenario
from harness.core.units import GIB, MIB
from harness.memory.peak import SPREAD_RATIO, memory_of
from harness.memory.placed import (
    card_of,
    cards_of,
    fullest_card,
    held_by_card,
    layout_of,
    parts_of,
    rooms_of,
    with_cards,
)
from harness.memory.splits import best_split, program_fit, quick_first, steps
from harness.models.names import load_model
from harness.models.weights import weights_of


def weights(name: str, quant: str = "Q4_K_M") -> Weights:
    return weights_of(load_model(name).shape, quant)


def fullness(model: Weights, scenario: Scenario, device: Device, placement: Placement) -> list[float]:
    """Of each card, by the parts that lie on it, with the margin of what is predicted."""
    held = held_by_card(memory_of(model, scenario, device, placement).parts)
    rooms = rooms_of(device, max(device.card_count, 1))
    return [held[card] * (1 + SPREAD_RATIO) / room for card, room in enumerate(rooms)]


def in_ram(model: Weights, scenario: Scenario, device: Device, placement: Placement) -> int:
    parts = memory_of(model, scenario, device, placement).parts
    return sum(part.size_bytes for part in parts if not part.is_beside_ram)


# Qwen3-30B has experts in all of its 48 blocks; DeepSeek-V3 keeps its first three of 61 dense.
@pytest.mark.parametrize(
    ("name", "blocks", "moe_counts"),
    [
        ("llama-3.1-8b", 32, [0]),
        ("qwen3-30b-a3b", 48, list(range(49))),
        ("deepseek-v3", 61, [0, *range(4, 62)]),
    ],
)
def test_experts_leave_first_and_then_whole_blocks(name: str, blocks: int, moe_counts: list[int]) -> None:
    listed = list(steps(load_model(name).shape, (2.0, 1.0)))
    assert [step.cpu_moe for step in listed if step.gpu_layers == "all"] == moe_counts
    later = listed[len(moe_counts) :]
    assert [step.gpu_layers for step in later] == list(range(blocks, -1, -1))
    assert {step.cpu_moe for step in later} == {blocks if len(moe_counts) > 1 else 0}
    assert {step.tensor_split for step in listed} == {(2.0, 1.0)}


@pytest.mark.parametrize(
    ("name", "quant", "device", "context"),
    [
        ("llama-3.1-8b", "Q4_K_M", "rtx 4090 + 64GB", 8192),
        ("llama-3.1-8b", "Q8_0", "rtx 4060 + 32GB", 8192),
        ("qwen3-32b", "Q4_K_M", "rtx 3060 12GB + 64GB", 4096),
        ("qwen3-30b-a3b", "Q4_K_M", "rtx 4060 + 64GB", 16384),
        ("gpt-oss-20b", "MXFP4", "rtx 3060 12GB + 32GB", 16384),
        ("gpt-oss-20b", "MXFP4", "rtx 3050 4GB + 32GB", 4096),
        ("glm-4.5-air", "Q4_K_M", "rtx 4090 + 96GB", 4096),
    ],
)
def test_the_best_split_of_one_card_moves_least(name: str, quant: str, device: str, context: int) -> None:
    """The first of all steps, looked at one after the other, with room on the card and in RAM."""
    model, rig, asked = weights(name, quant), resolve_device(device), Scenario(context_tokens=context)

    def has_room(step: Placement) -> bool:
        fits_ram = in_ram(model, asked, rig, step) <= rig.ram.usable_bytes.value
        return max(fullness(model, asked, rig, step)) <= 1 and fits_ram

    first = next(step for step in steps(model.shape, rig.card_shares) if has_room(step))
    assert best_split(model, rig, asked) == first


def test_what_is_held_beside_the_model_moves_more_of_it() -> None:
    model, rig, asked = weights("llama-3.1-8b", "Q8_0"), resolve_device("rtx 3080 + 32GB"), Scenario()
    alone, beside = best_split(model, rig, asked), best_split(model, rig, asked, int(4 * GIB))
    assert alone is not None and beside is not None
    assert alone.gpu_layers == "all"
    assert isinstance(beside.gpu_layers, int)
    # 34 blocks' parts of 7.95 GiB: 4 GiB beside of some 9.5 leave room for less than two thirds of them
    assert 15 < beside.gpu_layers < 25


def test_no_split_helps_where_ram_is_too_small_as_well() -> None:
    assert best_split(weights("llama-3.3-70b"), resolve_device("rtx 4060 + 16GB"), Scenario()) is None
    assert best_split(weights("llama-3.3-70b"), resolve_device("rtx 4060 + 96GB"), Scenario()) is not None


@pytest.mark.parametrize(
    ("name", "quant", "device"),
    [
        ("llama-3.3-70b", "Q4_K_M", "rtx 4090 + rtx 3060 12GB + 96GB"),
        ("qwen3-32b", "Q8_0", "rtx 3090 + rtx 3080 + 64GB"),
    ],
)
def test_unlike_cards_are_about_as_full_as_each_other(name: str, quant: str, device: str) -> None:
    model, rig, asked = weights(name, quant), resolve_device(device), Scenario(context_tokens=8192)
    split = best_split(model, rig, asked)
    assert split is not None
    full = fullness(model, asked, rig, split)
    assert max(full) <= 1
    # no fuller than by one block of the model on the smallest card
    block = model.tensor_bytes / model.shape.layer_count / min(rooms_of(rig, 2))
    assert max(full) - min(full) <= 1.5 * block
    assert min(full) > 1 - 2.5 * block, "nothing lies with the CPU that has room on a card"


def test_the_quicker_of_unlike_cards_is_filled_first() -> None:
    """An RTX 4090 has 1,008 GB/s and a 3060 360: the first takes all it has room for, the other the rest."""
    model, asked = weights("qwen3-32b", "Q6_K"), Scenario(context_tokens=8192)
    for text, quick in (("rtx 4090 + rtx 3060 12GB + 64GB", 0), ("rtx 3060 12GB + rtx 4090 + 64GB", 1)):
        rig = resolve_device(text)
        (placement,) = quick_first(model, rig, asked)
        full = fullness(model, asked, rig, placement)
        block = model.tensor_bytes / model.shape.layer_count / max(rooms_of(rig, 2))
        assert 1 - 2 * block < full[quick] <= 1
        assert full[1 - quick] < 0.7
        assert sum(placement.tensor_split) == 65  # all blocks and the output


@pytest.mark.parametrize("device", ["2x rtx 3090", "rtx 4090 + 64GB"])
def test_like_cards_have_no_quicker_one(device: str) -> None:
    model = weights("qwen3-32b", "Q6_K")
    assert list(quick_first(model, resolve_device(device), Scenario(context_tokens=8192))) == []


def test_a_model_that_one_card_holds_is_not_spread() -> None:
    model = weights("llama-3.1-8b")
    assert list(quick_first(model, resolve_device("rtx 4090 + rtx 3060 12GB + 64GB"), Scenario())) == []


def on_card(model: Weights, scenario: Scenario, device: Device) -> int:
    return sum(held_by_card(memory_of(model, scenario, device).parts).values())


def searched(model: Weights, scenario: Scenario, device: Device, room: float) -> Iterator[tuple[str, Placement]]:
    """Every placement that keeps within the room, in the order of llama.cpp's fit: experts alone, else layers."""
    blocks = model.shape.layer_count
    for moved in range(blocks + 1):
        for kind, one in (("experts", Placement(cpu_moe=moved)), ("layers", Placement(gpu_layers=blocks + 1 - moved))):
            if on_card(model, scenario.replace(placement=one), device) <= room:
                yield kind, one


def test_llama_server_keeps_all_where_its_target_stays_free() -> None:
    model, rig = weights("llama-3.1-8b"), resolve_device("rtx 4090 + 64GB")
    fit = program_fit(model, Scenario(program="llama-server", context_tokens=8192), rig, context_asked=True)
    assert fit is not None and fit.fits
    assert fit.scenario.placement == Placement() and fit.scenario.context_tokens == 8192
    assert fit.why == (
        "llama-server fits the model by itself: you get all 8,192 tokens of context and all layers on the card"
    )


def test_llama_server_reads_the_context_from_the_line_between_the_least_and_the_whole() -> None:
    """Linear between 4,096 tokens and the model's own 131,072, down to a multiple of 256, with 1 GiB left free."""
    model, rig, plain = (
        weights("llama-3.1-8b"),
        resolve_device("rtx 3060 12GB + 32GB"),
        Scenario(program="llama-server"),
    )
    fit = program_fit(model, plain, rig, context_asked=False)
    room = rig.pool("vram").usable_bytes.value - 1024 * MIB
    least, most = (on_card(model, plain.replace(context_tokens=n), rig) for n in (4096, 131072))
    tokens = 4096 + (room - least) / (most - least) * (131072 - 4096)
    assert fit is not None
    assert fit.scenario.context_tokens == tokens // 256 * 256
    assert fit.why.endswith(
        f"you get {fit.scenario.context_tokens:,} of 131,072 tokens of context, all layers on the card"
    )


@pytest.mark.parametrize(
    ("name", "device", "kind"),
    [
        ("qwen3-30b-a3b", "rtx 3060 12GB + 64GB", "experts"),
        ("gpt-oss-20b", "rtx 4060 + 32GB", "experts"),
        ("qwen3-32b", "rtx 3060 12GB + 64GB", "layers"),
        ("glm-4.5-air", "rtx 3050 4GB + 96GB", "layers"),
    ],
)
def test_llama_server_moves_experts_where_that_suffices_and_layers_else(name: str, device: str, kind: str) -> None:
    model, rig = weights(name), resolve_device(device)
    asked = Scenario(program="llama-server", context_tokens=16384)
    fit = program_fit(model, asked, rig, context_asked=True)
    room = rig.pool("vram").usable_bytes.value - 1024 * MIB
    assert fit is not None
    found = next(one for by, one in searched(model, asked, rig, room) if by == kind)
    assert fit.scenario.placement == found
    blocks = model.shape.layer_count
    if kind == "experts":
        words = f"experts of {found.cpu_moe} of {blocks} layers with the CPU"
    else:
        words = f"{found.gpu_layers} of {blocks + 1} layers on the card"
    assert fit.why.endswith(f"you get 16,384 tokens of context, {words}")


def test_llama_server_moves_nothing_where_the_layers_were_asked_for() -> None:
    model, rig = weights("qwen3-32b"), resolve_device("rtx 3060 12GB + 64GB")
    asked = Scenario(program="llama-server", context_tokens=16384)
    fit = program_fit(model, asked, rig, context_asked=True, layers_asked=True)
    assert fit is not None and not fit.fits
    assert fit.scenario.placement == Placement()
    assert fit.why.endswith("it leaves less than 1.00 GiB free")


def test_over_several_cards_the_best_split_is_taken() -> None:
    model, rig = weights("llama-3.3-70b"), resolve_device("2x rtx 3090 + 64GB")
    asked = Scenario(program="llama-server", context_tokens=16384)
    fit = program_fit(model, asked, rig, context_asked=True)
    assert fit is not None and fit.fits
    assert fit.scenario.placement == best_split(model, rig, asked)
    assert fit.why.endswith("you get 16,384 tokens of context over 2 cards")


# Ollama: 4,096 tokens below 24 GiB of card memory, 32,768 below 48, 262,144 from there (server/routes.go, 0.17).
@pytest.mark.parametrize(
    ("device", "context"),
    [
        ("rtx 4060 + 32GB", 4096),
        ("rtx 4090 + 64GB", 32768),
        ("2x rtx 3090 + 64GB", 131072),
        ("ryzen 9 7950x: 64GB", 4096),
    ],
)
def test_ollamas_context_is_by_the_memory_of_all_cards(device: str, context: int) -> None:
    model = weights("llama-3.2-1b")  # it was trained to 131,072
    fit = program_fit(model, Scenario(program="ollama"), resolve_device(device), context_asked=False)
    assert fit is not None
    assert fit.scenario.context_tokens == context


def test_blocks_that_draft_and_tables_lie_where_the_output_lies() -> None:
    model = weights("llama-3.2-1b")  # the token table is the output too
    whole, none = parts_of(model, Placement()), parts_of(model, Placement(gpu_layers=0))
    assert "token_embd.weight" in {tensor.name for tensor in whole.gpu.tensors}
    assert "token_embd.weight" in {tensor.name for tensor in none.cpu.tensors}
    assert not none.gpu.tensors
    only_output = parts_of(model, Placement(gpu_layers=1))
    assert {tensor.block for tensor in only_output.gpu.tensors} == {-1}
    assert only_output.gpu.shape.layer_count == 0 and only_output.cpu.shape.layer_count == 16
    untied = parts_of(weights("llama-3.1-8b"), Placement())
    assert "token_embd.weight" not in {tensor.name for tensor in (*untied.gpu.tensors, *untied.cpu.tensors)}


@pytest.mark.parametrize(
    ("shares", "first", "expected"),
    [
        # (block - first) / (layers + 1 - first) against running shares; 4 blocks and the output
        ((1.0, 1.0), 0, [0, 0, 0, 1, 1]),
        ((3.0, 2.0), 0, [0, 0, 0, 1, 1]),
        ((1.0, 4.0), 0, [0, 1, 1, 1, 1]),
        ((1.0, 1.0), 3, [-1, -1, -1, 0, 1]),
        ((), 2, [-1, -1, 0, 0, 0]),
    ],
)
def test_cards_of_blocks_are_llama_cpps(shares: tuple[float, ...], first: int, expected: list[int]) -> None:
    assert cards_of(4, Placement(gpu_layers=5 - first, tensor_split=shares)) == expected


def test_shares_that_are_used_up_leave_the_last_card() -> None:
    assert card_of(9, 0, 8, (1.0, 0.0)) == 1


@pytest.mark.parametrize(
    ("api", "mode", "moe", "overlap"),
    [("cuda", "layer", 0, True), ("cuda", "row", 0, False), ("metal", "layer", 0, False), ("cuda", "layer", 4, False)],
)
def test_batches_overlap_only_over_cards_with_events(api: str, mode: str, moe: int, *, overlap: bool) -> None:
    model = weights("qwen3-30b-a3b")
    placed = Placement(tensor_split=(1.0, 1.0), split_mode=mode, cpu_moe=moe)
    layout = layout_of(parts_of(model, placed), placed, api)
    assert layout.is_pipelined is overlap
    largest = dict(layout[2])
    # 128 experts of 2048 x 768, down in Q6_K (210 bytes for 256) in half of the blocks, the others in Q4_K (144)
    if moe:
        assert largest["ffn_down_exps"] == 128 * 2048 * 768 // 256 * 210
        assert largest["ffn_up_exps"] == 128 * 2048 * 768 // 256 * 144
    one = Placement()
    assert not layout_of(parts_of(model, one), one, "cuda").is_pipelined


def test_so_many_cards_hold_so_many_times_the_memory() -> None:
    one = resolve_device("rtx 3090 + 64GB")
    three = with_cards(one, 3)
    assert three.pool("vram").total_bytes.value == 3 * one.pool("vram").total_bytes.value
    assert three.pool("vram").usable_bytes.value == 3 * one.pool("vram").usable_bytes.value
    assert three.ram == one.ram


def test_a_small_card_keeps_at_most_half_for_others() -> None:
    """What others use of the mean card is taken from each, but from a small one at most half."""
    rig = resolve_device("2x rtx 3090 + 64GB")
    pool = rig.pool("vram")
    taken = pool.total_bytes.value - pool.usable_bytes.value
    assert rooms_of(rig, 1) == [pool.usable_bytes.value] * len(rooms_of(rig, 1))
    assert taken > 0
    assert fullest_card([], rig) == 0


# Ollama's physical batch by the context, from 0.30 on (server/sched.go).
@pytest.mark.parametrize(("context", "batch"), [(4096, 512), (4097, 1024), (32768, 1024), (65536, 2048)])
def test_ollamas_batch_is_by_the_context(context: int, batch: int) -> None:
    asked = Scenario(program="ollama", context_tokens=context)
    fit = program_fit(weights("llama-3.2-1b"), asked, resolve_device("rtx 4090 + 64GB"), context_asked=True)
    assert fit is not None and fit.scenario.ubatch_tokens == batch


def test_on_unified_memory_only_what_the_gpu_holds_counts_against_its_limit() -> None:
    """On 16 GB Metal may wire 10.67 GiB: all but 3 layers of an 8B in Q8_0 and 64k of cache go with the CPU, or fit."""
    model, rig = weights("llama-3.1-8b", "Q8_0"), resolve_device("macbook-air-m3")
    asked = Scenario(program="llama-server", context_tokens=65536)
    fit = program_fit(model, asked, rig, context_asked=True)
    assert fit is not None
    layers = fit.scenario.placement.gpu_layers
    assert isinstance(layers, int) and 0 < layers < 33
    parts = memory_of(model, fit.scenario, rig).parts
    on_gpu = {"weights", "kv cache", "compute buffer", "driver"}
    wired = sum(part.size_bytes for part in parts if part.kind.value in on_gpu)
    room = rig.pool(rig.pool_for("metal")).usable_bytes.value - 1024 * MIB
    assert wired <= room < sum(part.size_bytes for part in parts)


def test_a_cache_with_the_cpu_leaves_the_cards_to_the_weights() -> None:
    """With 100k tokens of cache in RAM both cards are as full by their blocks alone."""
    model, rig = weights("qwen3-32b"), resolve_device("rtx 3060 12GB + rtx 3060 Ti 8GB + 96GB")
    asked = Scenario(context_tokens=40960, placement=Placement(kv_on_gpu=False))
    split = best_split(model, rig, asked)
    assert split is not None and not split.kv_on_gpu
    full = fullness(model, asked, rig, split)
    block = model.tensor_bytes / model.shape.layer_count / min(rooms_of(rig, 2))
    assert max(full) <= 1 and max(full) - min(full) <= 1.5 * block
    held = held_by_card(memory_of(model, asked, rig, split).parts)
    assert sum(held.values()) > 0.8 * sum(rooms_of(rig, 2))


def test_experts_that_left_the_first_card_make_room_for_more_blocks_there() -> None:
    model, rig = weights("qwen3-235b-a22b"), resolve_device("2x rtx 3090 + 192GB")
    asked = Scenario(context_tokens=8192)
    split = best_split(model, rig, asked)
    assert split is not None and split.cpu_moe > 0
    first = split.tensor_split[0]
    assert first > split.cpu_moe, "all blocks without experts, and some more, lie on the first"
    full = fullness(model, asked, rig, split)
    block = model.tensor_bytes / model.shape.layer_count / min(rooms_of(rig, 2))
    assert max(full) - min(full) <= 1.5 * block
