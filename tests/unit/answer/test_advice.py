"""Advice: what it offers, in which order, at what published cost in quality."""

import pytest

from harness.answer.advice import Advice, Adviser, Variant, perplexity_growth_percent
from harness.core.device import Device
from harness.core.prediction import Interval, Prediction, SpeedPrediction
from harness.core.scenario import Scenario
from harness.core.way import Way, WayKind
from harness.hardware.devices import load_device
from harness.memory.peak import memory_of
from harness.memory.verdict import judge
from harness.models.names import load_model
from harness.models.weights import weights_of

ORDER = ["fits", "fits with streaming", "does not fit"]
LLAMA = load_model("llama-3.1-8b")


def evaluate(variant: Variant) -> Way:
    """Real memory and verdict; for the speed the plain ceiling, bandwidth / bytes."""
    weights = weights_of(LLAMA.shape, variant.quant)
    memory = memory_of(weights, variant.scenario, variant.device)
    ceiling = variant.device.pool("ram").bandwidth_bytes_per_s.value / weights.file_bytes
    exact = Interval(mid=ceiling, low=ceiling, high=ceiling)
    speed = SpeedPrediction(
        decode_tokens_per_s=exact,
        prefill_tokens_per_s=exact,
        ttft_cold_s=exact,
        ttft_warm_s=exact,
        load_cold_s=exact,
        load_warm_s=exact,
        active_bytes=weights.file_bytes,
        kv_read_bytes=0,
        roofline_tokens_per_s=ceiling,
        limits={"weights": 1.0},
    )
    answered = Prediction(
        device=variant.device.name,
        model="llama-3.1-8b",
        quant=variant.quant,
        api=variant.device.api(variant.scenario.api),
        memory=memory,
        speed=speed,
        verdict=judge(memory, speed, variant.device),
    )
    return Way(kind=WayKind.WHOLE, scenario=variant.scenario, prediction=answered)


def ask(quant: str, scenario: Scenario, device: Device, most: int = 8) -> tuple[Prediction, list[Advice]]:
    asked = Variant(quant, scenario, device)
    now = evaluate(asked).prediction
    adviser = Adviser(now, asked, LLAMA.shape, 8_030_261_248)
    for change in adviser.changes():
        adviser.take(change, evaluate(change.asked))
    return now, adviser.ranked(most)


def test_a_model_too_big_for_a_phone_gets_a_smaller_mixture() -> None:
    now, advice = ask("Q8_0", Scenario(context_tokens=2048), load_device("iphone-16-pro"), most=30)
    assert now.verdict.word != "fits"
    fitting = [a.change for a in advice if a.kind == "quant" and a.word == "fits"]
    # 3 GiB for one app: 2.74 GiB of IQ2_M weights less its token table do not fit beside 0.6 GiB of other things
    assert all("Q4_K_M" not in change for change in fitting)
    assert {a.word for a in advice} <= set(ORDER[: ORDER.index(now.verdict.word) + 1])


def test_better_verdicts_come_first_and_cheap_ones_before_dear_ones() -> None:
    device = load_device("iphone-15-pro")
    _, advice = ask("F16", Scenario(context_tokens=8192), device, most=30)
    ranks = [ORDER.index(a.word) for a in advice]
    assert ranks == sorted(ranks)
    same = [a.quality_percent or 0.0 for a in advice if a.word == advice[-1].word]
    assert same == sorted(same)


def test_cost_in_quality_is_the_published_one() -> None:
    now, advice = ask("Q8_0", Scenario(), load_device("macbook-pro-m4-max"), most=30)
    q4 = next(a for a in advice if a.change.endswith("Q4_K_M"))
    # Llama-3-8B: +2.4 % at Q4_K_M, +0.02 % at Q8_0
    assert q4.quality_percent == pytest.approx(100 * (1.024 / 1.0002 - 1))
    assert q4.speed_ratio > 1.5
    assert now.verdict.needed_bytes - q4.needed_bytes > 3e9


@pytest.mark.parametrize(
    ("quant", "parameters", "percent"),
    [("Q4_K_M", 8e9, 2.4), ("Q4_K_M", 7e10, 4.83), ("Q5_1", 7e10, 1.68), ("IQ1_S", 8e9, 873.74), ("TQ1_0", 8e9, None)],
)
def test_published_perplexities(quant: str, parameters: float, percent: float | None) -> None:
    assert perplexity_growth_percent(quant, parameters) == percent


def test_a_change_that_brings_nothing_is_not_advised() -> None:
    """7.95 GiB of Q8_0 in 3 GiB that a phone grants: none of these contexts makes it fit, or any faster."""
    now, advice = ask("Q8_0", Scenario(context_tokens=8192), load_device("iphone-15-pro"), most=30)
    assert now.verdict.word != "fits"
    assert all(a.word != now.verdict.word or a.speed_ratio > 1.05 for a in advice)
    assert all(a.how == f"all in {a.change.removeprefix('quantise to ')}" for a in advice if a.kind == "quant")


def test_of_steps_that_bring_the_same_the_first_is_advised() -> None:
    """4.58 GiB of Q4_K_M beside caches of 128 KiB a token in 5.33 GiB: 4,096 tokens are 0.5 GiB, the half 0.25."""
    _, advice = ask("Q4_K_M", Scenario(context_tokens=32768), load_device("macbook-air-m1-8gb"), most=30)
    contexts = [a.change for a in advice if a.kind == "context" and a.word == "fits"]
    assert len(contexts) == 1


def test_a_narrow_cache_is_advised_for_room_and_never_for_speed() -> None:
    """Users of cards deny that it is faster for prompts and deep contexts."""
    roomy = load_device("macbook-pro-m4-max")
    _, advice = ask("Q4_K_M", Scenario(context_tokens=32768), roomy, most=30)
    assert not [a for a in advice if a.kind == "kv"]
    # 8,192 tokens of 128 KiB are 1 GiB beside 4.58 GiB of weights in 5.33 GiB, and 0.28 GiB in Q4_0
    _, advice = ask("Q4_K_M", Scenario(context_tokens=8192), load_device("macbook-air-m1-8gb"), most=30)
    assert any(a.kind == "kv" and a.word == "fits" for a in advice)
