"""Placement: what lies where by llama.cpp's rules, memory and time that add up, and the best split."""

import math
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from harness.answer.case import Case
from harness.answer.commands import way_flags
from harness.answer.resolve import resolve_device, resolve_model
from harness.answer.ways import in_memory, longest_context, memory_in, ways
from harness.core.errors import RefusedError
from harness.core.placement import Placement, placement_of
from harness.core.prediction import PartKind
from harness.core.scenario import Scenario
from harness.core.way import WayKind
from harness.hardware.devices import load_device
from harness.hardware.traits import traits_of
from harness.memory.kv_cache import block_cache_bytes, cells_of, kv_cache_bytes
from harness.memory.peak import SPREAD_RATIO, memory_of, without_parts
from harness.memory.placed import card_of, fullest_card, parts_of
from harness.memory.splits import steps
from harness.models.names import load_model
from harness.models.weights import read_of, weights_of
from harness.speed.coefficients import shipped
from harness.speed.decode import decode_seconds
from harness.speed.estimate import predict_speed, split_of
from harness.speed.fitted import Fitted, work_of
from harness.speed.passes import Engines, Part, Pass, PlacementTerms, Terms, Work, fitted_link, pass_terms, whole
from harness.speed.work import Machine

MOE = weights_of(load_model("qwen3-30b-a3b").shape, "Q4_K_M")
DENSE = weights_of(load_model("llama-3.1-8b").shape, "Q4_K_M")
GPU = Machine("cuda", 272e9, traits_of("GeForce RTX 4060", "cuda", 272e9))
HOST = Machine("cpu", 96e9, traits_of("Ryzen 9 7950X", "cpu", 96e9))
VALUES = shipped().values


def bytes_by_card(memory) -> list[int]:
    """Bytes on each card, by the numbers of the parts."""
    cards: dict[int, int] = {}
    for part in memory.parts:
        if part.pool == "vram":
            card = part.card or 0
            cards[card] = cards.get(card, 0) + part.anonymous_bytes
    return [cards[card] for card in sorted(cards)]


PLAIN = PlacementTerms(
    gpu=0.0, cpu=0.0, experts=0.0, crossing=math.log(60e-6), prefill=0.0, link=math.log(0.7), ik=0.0,
    memory=math.log(0.35), cpu_prefill=0.0,
)  # fmt: skip
"""Nothing costs more than apart from others, and a link gives 0.7 of what it is said to."""


def seconds(weights, scenario, asked, terms, *, cards=1, link=16e9, **more):
    """Of a pass on cards of one kind beside the host."""
    costs = Fitted(GPU, shipped())
    even = (1 / cards,) * cards
    engines = Engines((costs,) * cards, Fitted(HOST, shipped()), fitted_link(link, HOST, terms, **more), even)
    return pass_terms(split_of(weights, scenario, asked), engines, asked).total_s


@pytest.mark.parametrize(
    ("placement", "first", "flags"),
    [
        # i_gpu_start = max(n_layer + 1 - n_gpu_layers, 0); the output is layer n_layer.
        (Placement(), 0, "-ngl 33"),
        (Placement(gpu_layers=33), 0, "-ngl 33"),
        (Placement(gpu_layers=11), 22, "-ngl 11"),
        (Placement(gpu_layers=1), 32, "-ngl 1"),
        (Placement(gpu_layers=0), 33, "-ngl 0"),
        (Placement(gpu_layers=99), 0, "-ngl 33"),
        (Placement(cpu_moe=4, tensor_split=(3, 1), kv_on_gpu=False), 0, "-ngl 33 --n-cpu-moe 4 -ts 3,1 -nkvo"),
        (Placement(tensor_split=(1, 1), split_mode="row", main_gpu=1), 0, "-ngl 33 -ts 1,1 -sm row -mg 1"),
    ],
)
def test_first_block_and_flags_are_llama_cpps(placement: Placement, first: int, flags: str):
    assert placement.first_gpu_block(32) == first
    assert placement.flags(32) == flags


@settings(max_examples=40, deadline=None)
@given(layers=st.integers(0, 60), moe=st.integers(0, 60), kv=st.booleans())
def test_every_tensor_is_computed_in_one_place(layers: int, moe: int, kv: bool):
    placement = Placement(gpu_layers=layers, cpu_moe=moe, kv_on_gpu=kv)
    parts = parts_of(MOE, placement)
    names = [t.name for part in parts[:3] for t in part.tensors]
    assert sorted([*names, "token_embd.weight"]) == sorted(t.name for t in MOE.tensors)
    assert parts.gpu.shape.layer_count + parts.cpu.shape.layer_count == MOE.shape.layer_count
    # What a split reads for a token is what the whole reads, wherever it lies; so is its cache.
    scenario = Scenario(placement=placement)
    split, whole = split_of(MOE, scenario, Pass(1, 100.0)), work_of(MOE, scenario, 100.0)
    sides = [part.work for part in (split.main, split.cpu, split.experts)]
    assert sum(w.weight_bytes for w in sides) == pytest.approx(whole.weight_bytes)
    assert sum(w.kv_bytes for w in sides) == pytest.approx(whole.kv_bytes)
    assert sum(w.layer_count for w in sides) == whole.layer_count


@pytest.mark.parametrize(
    "name",
    ["llama-3.1-8b", "gemma-3-4b", "qwen3-30b-a3b", "mamba-130m", "jamba-v0.1", "gemma-3n-e2b", "deepseek-v2-lite"],
)
def test_cache_of_blocks_sums_to_the_cache(name: str):
    shape = load_model(name).shape
    each = block_cache_bytes(shape, cells_of(Scenario(context_tokens=8192)))
    assert len(each) == shape.layer_count
    assert sum(each) == kv_cache_bytes(shape, Scenario(context_tokens=8192))


def test_cards_get_blocks_by_running_shares():
    # 80 blocks and the output over 3:1: positions up to 0.75 x 81 = 60.75 lie on the first card.
    assert [card_of(b, 0, 80, (3, 1)) for b in (0, 60, 61, 80)] == [0, 0, 1, 1]
    assert card_of(5, 0, 80, (1.0,)) == 0


def test_all_on_one_gpu_is_the_whole_law_and_a_crossing_costs_its_time():
    terms, one = PLAIN._replace(gpu=0.5, crossing=math.log(1e-3)), Pass(1, 64.0)
    whole = decode_seconds(work_of(DENSE, Scenario(), 64.0), GPU, VALUES).total_s
    assert seconds(DENSE, Scenario(), one, terms) == pytest.approx(whole)
    two = Scenario(placement=Placement(tensor_split=(1, 1)))
    moved = 8 * 4096 / (0.7 * 16e9)  # there and back in F32, over 0.7 of the link
    assert seconds(DENSE, two, one, terms, cards=2) == pytest.approx(whole + 1e-3 + moved, rel=1e-6)


class Fixed(NamedTuple):
    """A card that takes a second for all of a model, and less for a part of it."""

    factor: float = 1.0
    bandwidth_bytes_per_s: float = 1e12

    def seconds(self, parts, _asked):
        return Terms(self.factor * sum(part.work.weight_bytes for part in parts), 0.0, 0.0, 0.0, 0.0)

    def spread(self, _part, _asked):
        return 0.0, 0.0


@pytest.mark.parametrize(
    ("tokens", "shares", "factors", "expected_s"),
    [
        (512, (0.5, 0.5), (1, 1), 1.0),  # one batch goes from card to card
        (1024, (0.5, 0.5), (1, 1), 1.5 / 2),  # the second is half a second behind the first; seconds are a batch's
        (2048, (0.5, 0.5), (1, 1), 2.5 / 4),
        (2048, (0.75, 0.25), (1, 1), (1.0 + 3 * 0.75) / 4),  # the fuller card is waited for
        (2048, (0.5, 0.5), (1, 3), (2.0 + 3 * 1.5) / 4),  # or the slower one
        (2048, (1.0, 0.0), (1, 9), 1.0),  # a card without a share computes nothing
        (1, (0.5, 0.5), (1, 3), 2.0),  # a token goes through all
    ],
)
def test_batches_of_a_prompt_follow_one_another_over_cards(tokens, shares, factors, expected_s):
    engines = Engines(tuple(map(Fixed, factors)), Fixed(), shares=shares)
    model = whole(Part(Work(1.0, 0.0, 0.0, 0.0, "q4")))
    asked = Pass(tokens)
    terms = pass_terms(model, engines, asked)
    assert terms.total_s - terms.link_s == pytest.approx(expected_s)


def test_parts_of_a_split_add_each_by_its_engine():
    scenario, one = Scenario(placement=Placement(gpu_layers=17)), Pass(1, 64.0)
    split = split_of(DENSE, scenario, one)
    terms = PLAIN._replace(gpu=math.log(2), cpu=math.log(3), crossing=math.log(1e-9))
    main, cpu = (decode_seconds(part.work, m, VALUES).total_s for part, m in ((split.main, GPU), (split.cpu, HOST)))
    assert split.crossing_count == 1
    assert seconds(DENSE, scenario, one, terms) == pytest.approx(2 * main + 3 * cpu, rel=1e-3)


def test_a_long_prompt_copies_what_lies_with_the_cpu_once_for_each_batch():
    scenario, terms = (
        Scenario(placement=Placement(cpu_moe=48)),
        PLAIN._replace(link=math.log(0.5), memory=math.log(100.0)),
    )
    experts = sum(t.size_bytes for t in MOE.tensors if "_exps" in t.name)
    for ubatch, batches in ((512, 4), (2048, 1)):
        asked = Pass(2048, ubatch_tokens=ubatch)
        slow_s, fast_s = (seconds(MOE, scenario, asked, terms, link=link) for link in (16e9, 1e15))
        assert slow_s - fast_s == pytest.approx(batches * experts / 8e9, rel=1e-3)
    # 31 tokens are computed where their weights lie, as is everything where there is nothing to copy over
    for asked, shared in ((Pass(31), False), (Pass(512), True)):
        slow_s, fast_s = (
            seconds(MOE, scenario, asked, terms, link=link, shared_memory=shared) for link in (16e9, 1e15)
        )
        assert slow_s - fast_s == pytest.approx(asked.tokens * 48 * 8 * 2048 / 8e9, rel=1e-3)


@pytest.mark.parametrize(
    ("model", "quant", "device", "cards", "ram_gib", "check"),
    [
        (
            "qwen3-30b-a3b",
            "Q4_K_M",
            "rtx-4060-desktop",
            1,
            30,
            lambda p: p.gpu_layers == "all" and 25 <= p.cpu_moe <= 40,
        ),
        ("gpt-oss-20b", "MXFP4", "rtx-3060-desktop", 1, 30, lambda p: p.gpu_layers == "all" and p.cpu_moe <= 4),
        (
            "llama-3.3-70b",
            "Q4_K_M",
            "rtx-3090-desktop",
            2,
            30,
            lambda p: p.gpu_layers == "all" and len(p.tensor_split) == 2,
        ),
        ("llama-3.3-70b", "Q4_K_M", "rtx-3090-desktop", 1, 62, lambda p: 35 <= p.gpu_layers <= 50),
    ],
)
def test_the_usual_questions_have_an_answer(model, quant, device, cards, ram_gib, check):
    profile = load_device(device)
    ram = replace(profile.pool("ram"), usable_bytes=replace(profile.pool("ram").usable_bytes, value=ram_gib * 2**30))
    profile = replace(profile, pools=(ram, profile.pool("vram")))
    best = ways(
        Case.of(
            resolve_model(model, quant), replace(profile, card_shares=(1.0,) * cards if cards > 1 else ()), Scenario()
        )
    )[0]
    assert check(best.scenario.placement)
    # one step less on the CPU would not fit on the card with the room that its interval asks for
    weights, limit = resolve_model(model, quant).weights, profile.pool("vram").usable_bytes.value
    order = list(steps(weights.shape, (1.0,) * cards if cards > 1 else ()))
    here = order.index(best.scenario.placement)
    on_card = [
        max(bytes_by_card(memory_of(weights, Scenario(placement=step), profile)))
        for step in order[max(here - 1, 0) : here + 1]
    ]
    assert on_card[-1] * 1.03 <= limit and (here == 0 or on_card[0] * 1.03 > limit)


@pytest.mark.parametrize(
    ("device", "model", "gib", "by_size"),
    [
        ("rtx 3090 + rtx 3060", "qwen3-32b:Q6_K", (24, 12), True),
        ("rtx 3090 + gtx 1650", "qwen2.5-14b:Q8_0", (24, 4), True),
        # by their sizes the small one has no room for its part; with fewer layers on it, it has
        ("rtx 3090 + gtx 1650", "qwen3-32b:Q4_K_M", (24, 4), False),
    ],
)
def test_each_of_unlike_cards_has_room_for_its_part(device, model, gib, by_size):
    profile, resolved = resolve_device(device), resolve_model(model)
    case = Case.of(resolved, profile, Scenario())
    best = next(way for way in ways(case) if len(way.scenario.placement.tensor_split) > 1)
    assert way_flags(case, best).startswith("-ngl all -ts ") and best.kind is WayKind.CARDS
    quick, slow = best.scenario.placement.tensor_split
    assert quick / slow >= gib[0] / gib[1]  # the RTX 3090 is the quicker one
    assert best.prediction.verdict.word == "fits"
    rooms = [(size - 0.7) * 2**30 for size in gib]  # 0.7 GiB of each are others'
    held = bytes_by_card(best.prediction.memory)
    assert all(1.03 * size <= room for size, room in zip(held, rooms, strict=True))
    # the verdict of all of it there goes by the card that is fullest, too
    whole = Scenario(placement=Placement(tensor_split=tuple(map(float, gib))))
    memory = memory_in(Case.of(resolved, profile, whole))
    verdict = in_memory(Case.of(resolved, profile, whole)).verdict
    assert sum(bytes_by_card(memory)) < sum(rooms)
    fits = all(size <= room for size, room in zip(bytes_by_card(memory), rooms, strict=True))
    assert fits == by_size == (verdict.word == "fits") == (verdict.needed_bytes <= verdict.available_bytes)


@pytest.mark.parametrize(
    ("model", "device", "most_away"),
    [
        # 59 GiB of experts in 36 blocks; some 45 of the cards' 47 GiB are left for them: 9 blocks, and one to round.
        ("gpt-oss-120b:MXFP4", "2x rtx 3090 + 64GB", 11),
        # 22.9 GiB of experts in 48 blocks, of 24 GiB of cards some 19: 9 blocks, and two to round.
        ("qwen3-30b-a3b:Q6_K", "2x rtx 3060 12gb + 64GB", 12),
        ("gpt-oss-120b:MXFP4", "rtx 3090 + rtx 3060 12gb + 96GB", 19),
    ],
)
def test_cards_are_about_as_full_when_experts_of_the_first_blocks_are_away(model, device, most_away):
    profile, resolved = resolve_device(device), resolve_model(model)
    best = ways(Case.of(resolved, profile, Scenario()))[0]
    placed, held = best.scenario.placement, bytes_by_card(best.prediction.memory)
    assert placed.gpu_layers == "all" and 0 < placed.cpu_moe <= most_away
    assert sum(placed.tensor_split) == resolved.weights.shape.layer_count + 1  # blocks and the output
    assert best.prediction.verdict.word == "fits"
    # with one block's experts more on the cards no split of the blocks has room
    for first in range(1, resolved.weights.shape.layer_count):
        other = placed.replace(cpu_moe=placed.cpu_moe - 1, tensor_split=(first, sum(placed.tensor_split) - first))
        memory = memory_of(resolved.weights, Scenario(), profile, other)
        assert fullest_card(memory.parts, profile) * (1 + SPREAD_RATIO) > 1
    blocks = max(t.size_bytes for t in resolved.weights.tensors if "ffn_down_exps" in t.name) * 3
    full = [size / share for size, share in zip(held, profile.card_shares, strict=True)]
    assert (max(full) - min(full)) * min(profile.card_shares) < 1.5 * blocks


@pytest.mark.parametrize(
    ("flags", "mib"),
    [
        ("--n-cpu-moe 24 -ts 1,1", (1707, 14693)),
        ("--n-cpu-moe 24 -ts 3,1", (7901, 8501)),
        ("--n-cpu-moe 24 -ts 4,1", (9629, 6771)),
        ("--n-cpu-moe 16 -ts 2,1", (11837, 11091)),
    ],
)
def test_memory_of_each_card_is_what_was_published(flags, mib):
    """Qwen3.6 35B A3B in Q8_0 with 8,192 cells on two T4 (partial_offload.csv, Kaggle)."""
    model, cards = resolve_model("qwen3.6-35b-a3b:Q8_0"), resolve_device("2x tesla t4")
    asked = Scenario(context_tokens=8192, placement=placement_of(flags), program="llama-server")
    held = bytes_by_card(without_parts(memory_in(Case.of(model, cards, asked)), {PartKind.DRIVER}))
    assert [size / 2**20 for size in held] == pytest.approx(mib, abs=140)


def test_a_split_that_overfills_one_of_two_like_cards_does_not_fit():
    model, card = resolve_model("llama-3.3-70b", "Q4_K_M"), load_device("rtx-3090-desktop")
    words = []
    for shares in ((1.0, 1.0), (3.0, 1.0)):  # 40 GiB: 20 and 20 of 23.3 each, 30 and 10
        asked = Scenario(placement=Placement(tensor_split=shares))
        case = Case.of(model, card, asked)
        words.append(in_memory(case).verdict.word)
    assert words == ["fits", "does not fit"]


def test_the_longest_context_of_unlike_cards_is_that_of_both():
    # the mean of 24 and 12 GiB would hold some 100,000 tokens of it
    model, cards = resolve_model("llama-3.1-8b", "Q4_K_M"), resolve_device("rtx 3090 + rtx 3060")
    longest = longest_context(Case.of(model, cards, Scenario()))
    assert longest == model.weights.shape.context_max_tokens == 131072
    assert ways(Case.of(model, cards, Scenario(context_tokens=longest)))[0].kind.is_whole


def test_memory_of_a_split_is_the_whole_shared_out():
    device = load_device("rtx-4060-desktop")
    whole, split = (memory_of(MOE, Scenario(placement=p), device) for p in (Placement(), Placement(cpu_moe=20)))

    kinds = {PartKind.WEIGHTS, PartKind.CPU_WEIGHTS, PartKind.TABLE}

    def weights(memory, pool):
        mine = [p for p in memory.parts if p.pool == pool and p.kind in kinds]
        return sum(p.anonymous_bytes + p.file_bytes for p in mine)

    moved = sum(t.size_bytes for t in MOE.tensors if "_exps" in t.name and int(t.name.split(".")[1]) < 20)
    assert weights(whole, "vram") - weights(split, "vram") == moved
    assert weights(split, "ram") - weights(whole, "ram") == moved


def test_the_processor_beside_several_cards_is_asked_about_alone():
    (way,) = ways(Case.of(resolve_model("smollm2-135m"), resolve_device("2x rtx 3090"), Scenario(api="cpu")))
    assert (way.kind, way.prediction.api, way.prediction.verdict.word) == (WayKind.CPU, "cpu", "fits")
    assert {part.pool for part in way.prediction.memory.parts} == {"ram"}


@pytest.mark.parametrize("device", ["rtx-3090-desktop", "2x rtx 3090"])
def test_an_encoder_has_no_cache_on_any_number_of_cards(device):
    model, profile = resolve_model("bge-m3"), resolve_device(device)
    split = Scenario(placement=Placement(tensor_split=profile.card_shares))
    kinds = {part.kind for part in memory_in(Case.of(model, profile, split)).parts}
    assert PartKind.WEIGHTS in kinds
    assert not kinds & {PartKind.KV_CACHE, PartKind.CPU_KV_CACHE, PartKind.CELL_RECORDS}


def test_refusals_say_what_is_missing():
    with pytest.raises(RefusedError, match="no card of its own"):
        ways(
            Case.of(
                resolve_model("smollm2-135m"),
                replace(load_device("raspberry-pi-5"), card_shares=(1.0, 1.0)),
                Scenario(),
            )
        )


@pytest.mark.parametrize(
    ("written", "blocks"),
    [
        # as model pages and forums have them; all experts, in pieces, the first ten or twenty blocks
        ("-ngl 99 -ot exps=CPU", 512),
        (r"-ot '.ffn_.*_exps.=CPU'", 512),
        (r"-ot '.ffn_(up|gate)_exps.=CPU' -ot 'ffn_down_exps=CPU'", 512),
        (r"-ot 'blk\.[0-9]\.ffn_.*_exps=CPU'", 10),
        (r"-ot 'blk\.0\..*_exps=CPU,blk\.1\..*_exps=CPU'", 2),
        (r"-ngl 99 -ot blk\.0\..*_exps=CPU,blk\.1\..*_exps=CPU -nkvo", 2),
        (r"-ot 'blk\.[0-9]{1,1}\.ffn_.*_exps=CPU'", 10),
        (r"--override-tensor '\.([0-9]|1[0-9])\.ffn_(gate|up|down)_exps\.=CPU'", 20),
    ],
)
def test_patterns_that_leave_experts_with_the_cpu(written: str, blocks: int):
    assert placement_of(written).cpu_moe == blocks


@pytest.mark.parametrize(
    "written",
    [
        r"-ot 'blk\.1[0-9]\.ffn_.*_exps=CPU'",
        "-ot ffn=CPU",
        "-ot exps=CUDA1",
        "-ot '[=CPU'",
        "-ot ffn_up_exps=CPU",
        "-ot",
    ],
)
def test_other_patterns_are_refused_with_what_is_taken(written: str):
    with pytest.raises(ValueError, match=r"expected (patterns that leave the experts|regular expressions)"):
        placement_of(written)


@pytest.mark.parametrize("written", ["-ot exps=CPU --n-cpu-moe 4", "-ncmoe 4 -ot exps=CPU"])
def test_experts_are_placed_in_one_way(written: str):
    with pytest.raises(ValueError, match="either -ot or --n-cpu-moe"):
        placement_of(written)


@pytest.mark.parametrize(
    ("mode", "dense", "mixture"),
    [("tensor", (1.05, 1.45), (0.5, 1.05)), ("row", (0.45, 1.0), (0.2, 0.6))],  # links.csv: two cards against layers
)
def test_cards_that_share_each_matrix_are_as_fast_as_published(mode, dense, mixture):
    device = load_device("2x rtx 3090")
    for name, (low, high) in (("qwen3-32b", dense), ("qwen3-30b-a3b", mixture)):
        weights = weights_of(load_model(name).shape, "Q4_K_M")
        layers = Placement(tensor_split=(1.0, 1.0))
        speeds = [
            predict_speed(weights, device, Scenario(placement=one)).decode_tokens_per_s.mid
            for one in (layers, layers.replace(split_mode=mode))
        ]
        assert low <= speeds[1] / speeds[0] <= high


def test_a_host_that_nobody_told_is_a_doubt():
    weights = weights_of(load_model("qwen3-32b").shape, "Q4_K_M")
    half = Scenario(placement=Placement(gpu_layers=32))
    widths = []
    for line in ("rtx 3060", "rtx 3060 + 64gb ddr4-3200"):
        speed = predict_speed(weights, load_device(line), half).decode_tokens_per_s
        widths.append(speed.high / speed.low)
    assert widths[0] > 3.5
    assert widths[1] < 0.8 * widths[0]


@pytest.mark.parametrize(
    "placement", [Placement(gpu_layers=11), Placement(cpu_moe=12), Placement(gpu_layers=20, cpu_moe=40)]
)
@pytest.mark.parametrize("name", ["qwen3-30b-a3b", "qwen3.6-27b", "glm-4.7"])  # the last two have blocks that draft
def test_the_parts_of_a_split_read_what_the_whole_reads(name: str, placement: Placement):
    weights = resolve_model(name, "Q4_K_M").weights
    parts = parts_of(weights, placement)
    read = [read_of(part).size_bytes for part in (parts.gpu, parts.cpu, parts.experts)]
    assert sum(read) == pytest.approx(read_of(weights).size_bytes)


@pytest.mark.parametrize("name", ["mimo-v2-flash", "gpt-oss-20b", "qwen3-next-80b-a3b", "nemotron-3-nano-30b-a3b"])
@pytest.mark.parametrize("placement", [Placement(gpu_layers=layers) for layers in (0, 1, 7, 12)])
def test_the_parts_of_a_split_keep_what_their_own_blocks_keep(name: str, placement: Placement):
    weights = weights_of(load_model(name).shape, "Q4_K_M")
    scenario = Scenario(depth_tokens=16_000, placement=placement)
    device = load_device("rtx 3090 + 192gb ddr5")
    split = predict_speed(weights, device, scenario)
    whole_model = predict_speed(weights, device, scenario.replace(placement=Placement()))
    assert split.kv_read_bytes == pytest.approx(whole_model.kv_read_bytes, abs=2)
