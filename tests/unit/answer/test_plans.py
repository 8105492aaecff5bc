"""Speculation and streaming as ``fit`` tells them: against the formulas' own limits and a split done by hand."""

import pytest
from msgspec.structs import replace

from harness.answer.case import Case, within_budget
from harness.answer.plans import plan_speculation
from harness.answer.resolve import resolve_device, resolve_model
from harness.answer.ways import in_memory
from harness.core.device import Sourced
from harness.core.scenario import Scenario
from harness.core.units import GIB
from harness.core.way import WayKind
from harness.speed.draft_cycle import HEADS, expected_tokens_per_cycle
from harness.speed.estimate import predict_speed
from harness.speed.streamed import Streamed, layer_bytes, streamed_ways


def test_layers_hold_everything_but_the_tables() -> None:
    weights = resolve_model("llama-3.1-8b", "Q4_K_M").weights
    outside = sum(t.size_bytes for t in weights.tensors if not t.name.startswith("blk."))

    sizes = layer_bytes(weights)

    assert len(sizes) == 32
    assert sum(sizes) + outside == sum(t.size_bytes for t in weights.tensors)


def test_a_draft_as_large_as_its_target_never_pays() -> None:
    """A drafted token then costs a decoded one: even if all are accepted, gamma + 1 tokens cost at least gamma + 1."""
    model, device = resolve_model("llama-3.2-1b", "Q4_K_M"), resolve_device("rtx-4090-desktop")

    plan = plan_speculation(Case.of(model, device, Scenario()), model)

    assert plan.draft_cost_ratio == pytest.approx(1.0)
    assert {case.gamma for case in plan.cases} == {0}


@pytest.mark.parametrize("head", ["mtp", "eagle", "dflash"])
@pytest.mark.parametrize("device", ["rtx-4090-desktop", "macbook-pro-m3-max", "raspberry-pi-5-16gb"])
def test_a_head_costs_its_share_of_the_bytes_and_its_length_can_be_fixed(head: str, device: str) -> None:
    """A head of 3 % (a block of 15 %) of what a token reads, at the bandwidth, and its launches."""
    model, profile = resolve_model("llama-3.1-8b", "Q4_K_M"), resolve_device(device)
    speed = predict_speed(model.weights, profile, Scenario())
    pool = profile.pool(profile.pool_for(profile.api("")))
    share, launches = (0.15, 4e-3) if head == "dflash" else (0.03, 0.5e-3)
    drafting = share * speed.active_bytes / pool.bandwidth_bytes_per_s.value + launches

    plan = plan_speculation(Case.of(model, profile, replace(Scenario(), draft_tokens=4)), head)

    cycle = drafting * speed.decode_tokens_per_s.mid * (1 if head == "dflash" else 4) + plan.verify_cost_ratio[3]
    for case in plan.cases:
        gain = expected_tokens_per_cycle(case.acceptance_ratio, 4) / cycle
        assert (case.gamma, case.speedup) == ((4, pytest.approx(gain)) if gain > 1.03 else (0, 1.0))
    assert any(case.acceptance_ratio == HEADS[head] for case in plan.cases)


def test_a_mixture_gains_less_from_drafts_than_a_dense_model_of_its_speed() -> None:
    """Each drafted token reads experts of its own."""
    device = resolve_device("rtx-4090-desktop")
    dense, mixture = (
        plan_speculation(Case.of(resolve_model(name, "Q4_K_M"), device, Scenario()), "mtp")
        for name in ("llama-3.2-3b", "qwen3-30b-a3b")
    )
    assert mixture.verify_cost_ratio[1] > dense.verify_cost_ratio[1]


def _rates(ways: list[Streamed]) -> tuple[float, float]:
    """Tokens/s of a mapped file, and of streamed layers."""
    rates = {way.kind: way.speed.decode_tokens_per_s.mid for way in ways}
    assert rates.keys() == {WayKind.MAPPED, WayKind.STREAMED}
    return rates[WayKind.MAPPED], rates[WayKind.STREAMED]


def test_streaming_is_bounded_by_the_disk_and_beats_mapping() -> None:
    model = resolve_model("llama-3.1-8b", "Q4_K_M")
    device = within_budget(resolve_device("laptop-ddr5").replace(os="linux"), 4 * GIB)
    scenario = Scenario(repack=False)
    now = in_memory(Case.of(model, device, scenario))

    mapped, streamed = _rates(streamed_ways(model.weights, device, scenario, now))

    disk = device.storage.sequential_read_bytes_per_s.value
    (table,) = [
        t.size_bytes for t in model.weights.tensors if t.name == "token_embd.weight"
    ]  # of it rows are looked up
    missing = now.verdict.needed_bytes - table - now.verdict.available_bytes
    assert streamed <= disk / missing
    half = Sourced(value=disk / 2, source="", confidence="measured")
    measured = replace(device.storage, sequential_read_bytes_per_s=half, busy_read_bytes_per_s=half)
    slower = streamed_ways(model.weights, replace(device, storage=measured), scenario, now)  # the disk limits
    assert _rates(slower)[1] == pytest.approx(streamed / 2, rel=0.03)
    assert streamed > mapped


def test_experts_are_cached_by_what_has_room() -> None:
    model = resolve_model("hypothetical-moe-70b-a7b", "Q4_K_M")
    device = resolve_device("iphone-16-pro")
    now = in_memory(Case.of(model, device, Scenario())._replace(entitled=True))
    experts, mapped = streamed_ways(model.weights, device, Scenario(), now)

    assert (experts.kind, mapped.kind) == (WayKind.EXPERT_CACHE, WayKind.MAPPED)
    assert experts.hit_ratio is not None and 0 < experts.hit_ratio < 1


def test_verifying_reads_more_experts() -> None:
    """8 experts, 2 used: two tokens want 8 (1 - (3/4)^2) = 3.5 of them in the mean, 1.75 times those of one."""
    from harness.speed.fitted import experts_read_ratio, work_of
    from harness.speed.storage import expert_bytes

    weights = resolve_model("mixtral-8x7b", "Q4_K_M").weights
    routed, rest = expert_bytes(weights)
    work = work_of(weights, Scenario(), 0.0)

    assert experts_read_ratio(work, 1) == pytest.approx(1.0)
    # the token table, which is not read, counts among the routed bytes: 0.3 % of this model
    expected = (rest + routed * 3.5 / 8) / (rest + routed * 2 / 8)
    assert experts_read_ratio(work, 2) == pytest.approx(expected, rel=0.005)
    assert experts_read_ratio(work_of(resolve_model("llama-3.1-8b").weights, Scenario(), 0.0), 5) == 1.0
