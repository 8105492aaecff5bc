"""Drafts here, verified elsewhere: by hand from the speeds of both."""

import pytest

from harness.app.fit import predict
from harness.app.plans import SpeculationPlan, plan_speculation
from harness.app.resolve import resolve_model
from harness.catalog.devices import load_device
from harness.domain.scenario import Scenario
from harness.errors import RefusedError

SCENARIO = Scenario()
TARGET, DRAFT = resolve_model("llama-3.1-8b", "Q4_K_M"), resolve_model("llama-3.2-1b", "Q4_K_M")
HERE = load_device("macbook-air-m3")


def rate(model: object, device: str) -> float:
    return predict(model, load_device(device), SCENARIO).speed.decode_tokens_per_s.mid  # type: ignore[arg-type]


def plan(round_trip_s: float, verifier: str = "h100-sxm-server") -> SpeculationPlan:
    return plan_speculation(TARGET, HERE, SCENARIO, DRAFT, elsewhere=(load_device(verifier), round_trip_s))


def test_speed_is_tokens_of_a_cycle_over_its_time() -> None:
    draft_s, there, here = 1 / rate(DRAFT, HERE.name), rate(TARGET, "h100-sxm-server"), rate(TARGET, HERE.name)
    paying = [case for case in plan(0.04).cases if case.gamma]
    assert paying
    for case in paying:
        a, g = case.acceptance_ratio, case.gamma
        tokens = sum(a**i for i in range(g + 1))  # Leviathan et al. 2023: the first i drafts are all accepted
        # a pass there over g + 1 tokens takes at least one token's time, at most that of decoding each
        slowest, fastest = (g + 1) / there, 1 / there
        speed = case.speedup * here
        assert tokens / (g * draft_s + 0.04 + slowest) <= speed <= tokens / (g * draft_s + 0.04 + fastest)


def test_a_longer_way_pays_less_and_at_last_not_at_all() -> None:
    near, far = plan(0.001).cases[-1], plan(0.08).cases[-1]
    assert near.speedup > far.speedup
    assert all(case.gamma == 0 for case in plan(10.0).cases)


def test_a_verifier_too_small_is_refused() -> None:
    with pytest.raises(RefusedError, match="does not fit"):
        plan(0.04, "iphone-12")
