"""Verdicts on made-up parts, where the right answer can be seen."""

import pytest
from msgspec.structs import replace

from harness.core.errors import RefusedError
from harness.core.prediction import Interval, Limit, MemoryPart, MemoryPrediction, PartKind, SpeedPrediction
from harness.core.scenario import Scenario
from harness.core.units import GIB
from harness.hardware.devices import load_device
from harness.memory.peak import memory_of
from harness.memory.verdict import SEVERITY, check_entitlement, judge, needed_bytes_of, weight_bytes_of, with_target
from harness.models.names import load_model
from harness.models.weights import weights_of

PHONE = load_device("iphone-16-pro")  # 8 GiB installed, 3 GiB for one app, 6 GiB with the entitlement
CARD = load_device("rtx-4090-desktop")  # 24 GiB on the card


def parts(*given: tuple[str, float, float]) -> MemoryPrediction:
    made = tuple(
        MemoryPart(PartKind(n), anonymous_bytes=int(a * GIB), file_bytes=int(f * GIB), pool="ram") for n, a, f in given
    )
    total = sum(p.anonymous_bytes + p.file_bytes for p in made)
    return MemoryPrediction(parts=made, peak_bytes=Interval(mid=total, low=total, high=total))


def speed(tokens_per_s: float) -> SpeedPrediction:
    exact = Interval(mid=tokens_per_s, low=tokens_per_s, high=tokens_per_s)
    return SpeedPrediction(
        decode_tokens_per_s=exact,
        prefill_tokens_per_s=exact,
        ttft_cold_s=exact,
        ttft_warm_s=exact,
        load_cold_s=exact,
        load_warm_s=exact,
        active_bytes=4 * GIB,
        kv_read_bytes=0,
        roofline_tokens_per_s=2 * tokens_per_s,
        limits={"weights": 0.8, "overhead": 0.2},
    )


@pytest.mark.parametrize(
    ("memory", "word"),
    [
        (parts(("weights", 0, 2.0), ("kv cache", 0.5, 0)), "fits"),
        (parts(("weights", 0, 2.5), ("kv cache", 0.5, 0)), "fits"),  # exactly 3 GiB
        (parts(("weights", 0, 4.0), ("kv cache", 0.5, 0)), "fits with streaming"),
        (parts(("weights", 0, 4.0), ("kv cache", 3.5, 0)), "does not fit"),
        (parts(("weights", 0, 64.0), ("kv cache", 0.5, 0)), "does not fit"),  # no room for two of 32 layers, 4 GiB
    ],
)
def test_three_words(memory: MemoryPrediction, word: str) -> None:
    verdict = judge(memory, None, PHONE)
    assert verdict.word == word
    assert verdict.available_bytes == 3 * GIB


def test_originals_of_repacked_weights_need_not_stay() -> None:
    memory = parts(("weights", 0, 2.0), ("repacked weights", 1.5, 0), ("kv cache", 0.5, 0))
    # 2 GiB mapped of which 1.5 are never read again: 0.5 + 1.5 + 0.5
    assert sum(needed_bytes_of(memory.parts, "ram")) == 2.5 * GIB
    assert judge(memory, None, PHONE).word == "fits"


def test_entitlement() -> None:
    memory = parts(("weights", 0, 4.5), ("kv cache", 0.5, 0))
    plain = judge(memory, None, PHONE)
    assert plain.word == "fits with streaming"
    assert any("entitlement" in reason for reason in plain.reasons)
    assert judge(memory, None, PHONE, entitled=True).word == "fits"


@pytest.mark.parametrize(
    ("device", "word", "words"),
    [
        ("iphone-15-pro", "does not fit", "the system ends an app that holds more than it may"),
        ("macbook-air-m1-8gb", "fits with streaming", "this api holds all weights at once"),
    ],
)
def test_weights_that_are_held_cannot_come_from_storage(device: str, word: str, words: str) -> None:
    """6.5 GiB wired for the GPU; what is mapped of the interpreter is no weight."""
    memory = parts(("weights", 6.5, 0), ("runtime", 0.1, 0.024), ("kv cache", 0.5, 0))
    verdict = judge(memory, None, load_device(device), api="metal")
    assert verdict.word == word
    assert any(words in reason for reason in verdict.reasons)


def test_a_missed_target_is_a_no_that_names_the_limit() -> None:
    fits = judge(parts(("weights", 0, 2.0), ("kv cache", 0.5, 0)), speed(20), PHONE)
    assert with_target(fits, speed(20), 15, 0).word == "fits"
    slow = with_target(fits, speed(10), 15, 0)
    assert slow.word == "too slow"
    assert slow.binding_limit is Limit.DECODE_SPEED
    none = judge(parts(("weights", 0, 64.0), ("kv cache", 0.5, 0)), speed(20), PHONE)
    assert with_target(none, speed(20), 1, 0) == none


@pytest.mark.parametrize(("quant", "word"), [("Q4_K_M", "does not fit"), ("IQ2_XXS", "fits")])
def test_a_70b_on_a_card_of_24_gib(quant: str, word: str) -> None:
    # 39.6 GiB and 17.8 GiB of tensors
    memory = memory_of(weights_of(load_model("llama-3.1-70b").shape, quant), Scenario(), CARD)
    verdict = judge(memory, None, CARD)
    assert verdict.word == word
    if word == "does not fit":
        assert verdict.binding_limit is Limit.CARD_MEMORY


def test_more_room_never_makes_a_verdict_worse() -> None:
    order = ["fits", "fits with streaming", "does not fit"]
    memory = parts(("weights", 0, 5.0), ("kv cache", 0.5, 0))
    words = []
    for gib in (0.25, 0.5, 1, 2, 4, 5.5, 8):
        pool = PHONE.pool("ram")
        limit = replace(pool.usable_bytes, value=gib * GIB)
        device = replace(PHONE, pools=(replace(pool, usable_bytes=limit),))
        words.append(order.index(judge(memory, None, device).word))
    assert words == sorted(words, reverse=True)
    assert words[0] == 2
    assert words[-1] == 0


@pytest.mark.parametrize(("os", "words"), [("linux", "refuses to allocate"), ("windows", "reads it over the link")])
def test_what_is_over_the_cards_memory_is_said_by_system(os: str, words: str) -> None:
    """CUDA on Linux fails the allocation; Windows' driver model pages it to memory of the host."""
    part = MemoryPart(PartKind.WEIGHTS, anonymous_bytes=30 * GIB, file_bytes=0, pool="vram")
    memory = MemoryPrediction(parts=(part,), peak_bytes=Interval(mid=30 * GIB, low=30 * GIB, high=30 * GIB))
    verdict = judge(memory, None, replace(CARD, os=os))
    assert verdict.word == "does not fit"
    assert any(words in reason for reason in verdict.reasons)


@pytest.mark.parametrize(
    ("device", "api", "words"),
    [
        ("ryzen-7-8840u", "vulkan", "Windows lets a GPU that shares the RAM have half"),
        ("ryzen-7-8840u", "cpu", ""),
        ("ryzen 7 8840u linux", "vulkan", "raise ttm.pages_limit"),
        ("macbook-air-m4", "metal", ""),  # its own limit is what may be used
    ],
)
def test_a_gpu_that_shares_the_ram_has_half_of_it_by_default(device: str, api: str, words: str) -> None:
    """20 GiB of 32, 9 of 16: what is installed allows it, and the driver's default does not."""
    profile = load_device(device)
    size = 20.0 if profile.pool("ram").total_bytes.value > 20 * GIB else 9.0
    verdict = judge(parts(("weights", size, 0)), None, profile, api=api)
    assert verdict.word == "fits"
    assert any(words in reason for reason in verdict.reasons) == bool(words) or not words
    assert not any("have half" in reason for reason in verdict.reasons) or words
    less = judge(parts(("weights", size / 2, 0)), None, profile, api=api)
    assert not any("have half" in reason for reason in less.reasons)


@pytest.mark.parametrize(("size_gib", "has_hint"), [(15, False), (20, True), (30, True), (40, False)])
def test_the_systems_half_is_told_only_where_more_of_the_ram_would_help(size_gib: float, has_hint: bool) -> None:
    """Of 32 GiB, which hold 30 and never 40; the cause of a verdict stays last."""
    verdict = judge(parts(("kv cache", size_gib, 0)), None, load_device("lunar-lake"), api="vulkan")
    assert any("have half" in reason for reason in verdict.reasons) is has_hint
    assert "have half" not in verdict.reasons[-1]


def test_the_cpu_of_a_mac_is_not_held_to_what_is_wired_for_its_gpu() -> None:
    """12 GiB of 16: Metal recommends 11.84 at most, and a process may map more."""
    memory = parts(("weights", 12.0, 0))
    assert judge(memory, None, load_device("macbook-air-m4"), api="metal").word != "fits"
    assert judge(memory, None, load_device("macbook-air-m4"), api="cpu").word == "fits"


def test_a_higher_limit_is_refused_where_the_system_has_none() -> None:
    check_entitlement(True, PHONE)
    check_entitlement(False, CARD)
    with pytest.raises(RefusedError, match="one limit for all apps"):
        check_entitlement(True, CARD)


@pytest.mark.parametrize(
    ("rest_gib", "word"),
    [(2.74, "fits with streaming"), (2.76, "does not fit")],  # 3 GiB less a sixteenth of 4 GiB is 2.75 GiB
)
def test_a_sixteenth_of_the_weights_is_the_least_window(rest_gib: float, word: str) -> None:
    assert judge(parts(("weights", 0, 4.0), ("kv cache", rest_gib, 0)), None, PHONE).word == word


def test_weights_are_counted_once_and_without_a_draft_s() -> None:
    mapped, rewritten = parts(("weights", 0, 2.0), ("repacked weights", 1.5, 0)).parts
    table, held = parts(("token table", 0, 0.5), ("weights", 1.0, 0)).parts
    cache = parts(("kv cache", 1.0, 0)).parts[0]
    assert weight_bytes_of([mapped, rewritten, cache], "ram") == 2 * GIB
    assert weight_bytes_of([mapped, rewritten.replace(anonymous_bytes=3 * GIB)], "ram") == 3 * GIB
    assert weight_bytes_of([held, table], "ram") == 1.5 * GIB
    assert weight_bytes_of([held, mapped.replace(drafts=True), table.replace(pool="vram")], "ram") == GIB
    assert weight_bytes_of([table.replace(pool="vram")], "vram") == 0.5 * GIB


def test_the_severest_pool_decides() -> None:
    order = sorted(SEVERITY, key=lambda word: SEVERITY[word])
    assert order == ["fits", "fits with streaming", "too slow", "does not fit"]
    roomy, over = (MemoryPart(PartKind.WEIGHTS, size * GIB, pool="vram") for size in (1, 30))
    cache = MemoryPart(PartKind.KV_CACHE, GIB)
    total = Interval(mid=GIB, low=GIB, high=GIB)
    assert judge(MemoryPrediction(parts=(over, cache), peak_bytes=total), None, CARD).word == "does not fit"
    assert judge(MemoryPrediction(parts=(roomy, cache), peak_bytes=total), None, CARD).word == "fits"


def test_words_by_severity():
    # neighbours differ, and the order is that of what a user can do with a model
    assert SEVERITY == {"fits": 0, "fits with streaming": 1, "too slow": 2, "does not fit": 3}


def on_card(gib: float) -> MemoryPrediction:
    part = MemoryPart(PartKind.WEIGHTS, int(gib * GIB), pool="vram")
    return MemoryPrediction(parts=(part,), peak_bytes=Interval(mid=gib, low=gib, high=gib))


@pytest.mark.parametrize(
    ("memory", "device", "limit", "words"),
    [
        # an iPhone 16 Pro has 8 GiB, 3 for one app and 6 with the entitlement; a 4090 has 24, 23.3 for one app
        (parts(("weights", 0, 2.0)), PHONE, Limit.WEIGHTS, ("1.00 GiB to spare of memory one app may use",)),
        (on_card(20), CARD, Limit.WEIGHTS, ("3.30 GiB to spare of the card's memory",)),
        (on_card(23.5), CARD, Limit.CARD_MEMORY,
         ("of the card's memory available", "are installed; the rest is", "the driver refuses")),
        (on_card(24), CARD, Limit.CARD_MEMORY,
         ("of the card's memory available", "are installed; the rest is", "the driver refuses")),
        (on_card(25), CARD, Limit.CARD_MEMORY, ("of the card's memory available", "the driver refuses")),
        (parts(("weights", 0, 6.0)), PHONE, Limit.APP_MEMORY, ("available", "the higher-limit", "come from storage")),
        (parts(("weights", 0, 8.0)), PHONE, Limit.APP_MEMORY, ("available", "are installed", "come from storage")),
        (parts(("weights", 0, 9.0)), PHONE, Limit.APP_MEMORY, ("available", "come from storage")),
        # held to the byte is not too much: the rest is read again
        (parts(("weights", 0, 0.5), ("kv cache", 3.0, 0)), PHONE, Limit.APP_MEMORY,
         ("available", "the higher-limit", "there is no room")),
        (parts(("weights", 0, 0.5), ("kv cache", 3.1, 0)), PHONE, Limit.APP_MEMORY,
         ("available", "the higher-limit", "the system ends an app")),
    ],
)  # fmt: skip
def test_reasons_and_the_limit_by_hand(memory, device, limit, words):
    verdict = judge(memory, speed(10), device)
    assert verdict.binding_limit == limit
    assert len(verdict.reasons) == len(words), verdict.reasons
    for said, wanted in zip(verdict.reasons, words, strict=True):
        assert wanted in said


def test_a_model_that_fits_is_bound_by_what_takes_most_of_its_time():
    memory = parts(("weights", 0, 2.0))
    assert judge(memory, None, PHONE).binding_limit is Limit.NONE
    busy = speed(10).replace(limits={Limit.WEIGHTS: 0.2, Limit.OVERHEAD: 0.7, Limit.KV_CACHE: 0.1})
    assert judge(memory, busy, PHONE).binding_limit is Limit.OVERHEAD
    assert judge(memory, busy.replace(limits={}), PHONE).binding_limit is Limit.WEIGHTS


def test_a_window_to_the_byte_is_enough():
    # a sixteenth of 32 GiB and one of cache are the 3 GiB that an app has
    assert judge(parts(("weights", 0, 32.0), ("kv cache", 1.0, 0)), None, PHONE).word == "fits with streaming"
    assert judge(parts(("weights", 0, 32.1), ("kv cache", 1.0, 0)), None, PHONE).word == "does not fit"


def test_a_target_that_is_just_met_is_met():
    fits = judge(parts(("weights", 0, 2.0)), None, PHONE)
    assert with_target(fits, speed(15), 15, 0) == fits
    assert with_target(fits, speed(14.9), 15, 0).word == "too slow"


def test_one_pool_with_a_higher_limit_is_enough_to_ask_for_it():
    # a profile whose card has none: any of its pools will do
    entitled = PHONE.replace(pools=(*PHONE.pools, CARD.pool("vram")))
    check_entitlement(True, entitled)
    with pytest.raises(RefusedError):
        check_entitlement(True, CARD)


def test_an_engine_that_streams_is_asked_for_where_weights_are_held():
    desktop = load_device("rtx-4090-desktop")  # 62 GiB of RAM for one app, on Linux
    mapped = judge(parts(("weights", 0, 70.0)), None, desktop, api="cpu")
    held = judge(parts(("weights", 70.0, 0)), None, desktop, api="cpu")
    beside = judge(parts(("weights", 0, 20.0), ("kv cache", 50.0, 0)), None, desktop, api="cpu")
    said = [any("an engine that streams" in reason for reason in one.reasons) for one in (mapped, held, beside)]
    assert said == [False, True, False]
    # held to the byte of what there is, with more to read: no engine needs to stream what it holds
    edge = judge(parts(("weights", 62.0, 0), ("kv cache", 0, 1.0)), None, desktop, api="cpu")
    assert not any("an engine that streams" in reason for reason in edge.reasons)


def test_half_of_the_ram_to_the_byte_is_no_reason():
    # Windows lets a GPU that shares 32 GiB have 16 of them
    device = load_device("ryzen-ai-max+-395, 32gb, windows")
    part = MemoryPart(PartKind.WEIGHTS, 16 * GIB, pool="ram")

    def told(size: int) -> bool:
        memory = MemoryPrediction(parts=(part.replace(anonymous_bytes=size),), peak_bytes=Interval(1.0, 1.0, 1.0))
        reasons = judge(memory, None, device, api="vulkan").reasons
        return any("have half" in reason for reason in reasons)

    assert [told(16 * GIB), told(16 * GIB + 1)] == [False, True]
