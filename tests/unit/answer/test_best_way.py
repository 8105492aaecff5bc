"""The first way that is named: a random search over placements and cache types finds nothing clearly better."""

import random
from collections.abc import Iterator

import pytest

from harness.answer.answer import answer, best_case
from harness.answer.case import Case
from harness.answer.resolve import resolve_device
from harness.answer.ways import memory_in
from harness.core.errors import HarnessError
from harness.core.placement import Placement
from harness.core.question import Question
from harness.memory.peak import SPREAD_RATIO
from harness.memory.placed import fullest_card
from harness.speed.estimate import predict_speed

CARDS = ("RTX 4090", "RTX 3090", "RTX 3060", "RTX 4060 Ti 16GB", "RX 7900 XTX", "RX 9070 XT", "RTX 5080", "Tesla P40")
MODELS = ("llama-3.1-8b", "qwen3-14b", "qwen3-32b", "llama-3.3-70b", "qwen3-30b-a3b", "gpt-oss-120b", "gemma-3-27b")
RIGS = 40  # the same with 200 takes two minutes
TRIES = 12
SLACK = 1.05


def rigs(count: int) -> Iterator[tuple[str, str, int, str]]:
    """Model, device, context and cache type, drawn once for all."""
    draw = random.Random(59)
    for _ in range(count):
        vendor = draw.choice(("RTX", "RX"))
        cards = [card for card in CARDS if card.startswith(vendor) or (vendor == "RTX" and card[0] == "T")]
        device = " + ".join(draw.choice(cards) for _ in range(draw.choice((1, 1, 2, 2, 3))))
        context = draw.choice((4096, 16384, 32768))
        yield draw.choice(MODELS), f"{device}, 128GB DDR5-6000", context, draw.choice(("F16", "Q8_0", "Q4_0"))


def random_placement(draw: random.Random, case: Case, first: Placement) -> Placement:
    blocks = case.model.weights.shape.layer_count
    count = case.device.card_count
    if draw.random() < 0.5 and len(first.tensor_split) in {0, count}:  # near the first
        layers = blocks + 1 if first.gpu_layers == "all" else first.gpu_layers
        shares = tuple(max(share + draw.randint(-2, 2), 0.0) for share in first.tensor_split)
        return first.replace(
            gpu_layers=max(min(layers + draw.randint(-1, 4), blocks + 1), 0),
            cpu_moe=max(first.cpu_moe - draw.randint(0, 3), 0),
            tensor_split=shares if any(shares) else first.tensor_split,
        )
    shares = tuple(float(draw.randint(0, blocks)) for _ in range(count)) if count > 1 else ()
    if shares and not any(shares):
        shares = (1.0,) * count
    moe = draw.randint(0, blocks) if case.model.weights.shape.experts else 0
    layers = draw.choice(("all", draw.randint(0, blocks + 1)))
    return Placement(gpu_layers=layers, cpu_moe=moe, tensor_split=shares)


@pytest.mark.parametrize(("model", "device", "context", "kv_type"), [*rigs(RIGS)])
def test_no_placement_is_clearly_better_than_the_first_way(model: str, device: str, context: int, kv_type: str) -> None:
    question = Question(model=model, device=device, context_tokens=context, kv_type=kv_type)
    found = answer(question, advises=False)
    case = best_case(found)._replace(device=resolve_device(device), is_placed=False).at(placement=Placement())
    first = found.prediction.speed.decode_tokens_per_s.mid if found.best.fits else 0.0
    draw = random.Random(f"{model}{device}{context}")
    for _ in range(TRIES):
        other = case.at(placement=random_placement(draw, case, found.scenario.placement))
        parts = memory_in(other).parts
        in_ram = sum(part.size_bytes for part in parts if not part.is_beside_ram)
        if fullest_card(parts, other.device) * (1 + SPREAD_RATIO) > 1:
            continue
        if in_ram > other.device.ram.usable_bytes.value:
            continue
        speed = predict_speed(other.model.weights, other.device, other.scenario).decode_tokens_per_s.mid
        assert speed <= SLACK * first, other.scenario.placement


@pytest.mark.parametrize(("model", "device", "context"), sorted({rig[:3] for rig in rigs(RIGS)}))
def test_a_smaller_cache_that_is_clearly_faster_is_told(model: str, device: str, context: int) -> None:
    question = Question(model=model, device=device, context_tokens=context)
    found = answer(question)
    if not found.best.fits or found.best.kind.is_whole:
        return
    first = found.prediction.speed.decode_tokens_per_s.mid
    told = {one.kind for one in found.advice}
    for kv_type in ("Q8_0", "Q4_0"):
        try:
            other = answer(question.replace(kv_type=kv_type), advises=False)
        except HarnessError:  # a row of keys that its blocks do not divide
            continue
        if other.best.kind.is_whole and other.prediction.speed.decode_tokens_per_s.mid > SLACK * first:
            assert "kv" in told


@pytest.mark.parametrize(
    ("question", "flags"),
    [
        # 45 and 20 of 81 layers were counted by hand for 24 and 12 GB: by their sizes, 58 would have room
        (Question(model="llama-3.3-70b", quant="Q4_K_M", device="RTX 4090 + RTX 3060"), 63),
        (Question(model="llama-3.3-70b", device="2x RTX 3090", program="ollama", context_tokens=4096), 81),
    ],
)
def test_cards_are_filled_before_the_cpu(question: Question, flags: int) -> None:
    placement = answer(question, advises=False).scenario.placement
    layers = 81 if placement.gpu_layers == "all" else placement.gpu_layers
    assert layers >= flags
    assert len(placement.tensor_split) == 2


def test_tensor_split_is_told_and_never_first() -> None:
    found = answer(Question(model="llama-3.3-70b", device="2x RX 7900 XTX"))
    assert found.scenario.placement.split_mode == "layer"
    assert [way.scenario.placement.split_mode for way in found.ways].count("tensor") == 1
    narrow = answer(Question(model="llama-3.3-70b", device="2x RX 7900 XTX", kv_type="Q8_0"))
    assert "tensor" not in {way.scenario.placement.split_mode for way in narrow.ways}
