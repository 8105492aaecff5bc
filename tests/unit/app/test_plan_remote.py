"""Drafts here, verified elsewhere: by hand from the speeds of both."""

import pytest

from harness.app.case import Case
from harness.app.placed import predict
from harness.app.plans import SpeculationPlan, plan_speculation
from harness.app.resolve import ResolvedModel, resolve_model
from harness.catalog.devices import load_device
from harness.domain.scenario import Scenario
from harness.errors import RefusedError

SCENARIO = Scenario()
TARGET, DRAFT = resolve_model("llama-3.1-8b", "Q4_K_M"), resolve_model("llama-3.2-1b", "Q4_K_M")
HERE = load_device("macbook-air-m3")


def rate(model: object, device: str) -> float:
    return predict(Case.of(model, load_device(device), SCENARIO)).speed.decode_tokens_per_s.mid  # type: ignore[arg-type]


LARGE = resolve_model("llama-3.3-70b", "Q4_K_M")  # 42 GiB: on the server's card, not on one of 24 GiB


def plan(round_trip_s: float, verifier: str = "h100-sxm-server") -> SpeculationPlan:
    case = Case.of(TARGET, HERE, SCENARIO)._replace(verifier=(load_device(verifier), round_trip_s))
    return plan_speculation(case, DRAFT)


@pytest.mark.parametrize(
    ("model", "here", "there", "faster"),
    [
        (TARGET, "rtx-4090-desktop", "macbook-air-m3", "rtx-4090-desktop"),
        (TARGET, "macbook-air-m3", "rtx-4090-desktop", "rtx-4090-desktop"),
        (LARGE, "rtx-4090-desktop", "h100-sxm-server", "h100-sxm-server"),
        (LARGE, "pixel-8", "h100-sxm-server", "h100-sxm-server"),
    ],
)
def test_speedups_are_over_the_faster_of_both_alone(model: ResolvedModel, here: str, there: str, faster: str) -> None:
    case = Case.of(model, load_device(here), SCENARIO)._replace(verifier=(load_device(there), 0.04))
    made = plan_speculation(case, DRAFT)
    assert made.plain_tokens_per_s == pytest.approx(rate(model, faster))
    assert made.plain == ("here" if here == faster else f"on {load_device(faster).title} alone")
    assert made.draft_cost_ratio == pytest.approx(rate(model, faster) / rate(DRAFT, here))
    # with all accepted a cycle of g drafts still yields at most g + 1 tokens, in no less than the way there and back
    assert all(c.speedup * rate(model, faster) <= (c.gamma + 1) / 0.04 for c in made.cases if c.gamma)


def test_a_draft_that_does_not_fit_here_is_refused() -> None:
    case = Case.of(LARGE, load_device("pixel-8"), SCENARIO)._replace(verifier=(load_device("h100-sxm-server"), 0))
    with pytest.raises(RefusedError, match="cannot draft here"):
        plan_speculation(case, TARGET)


def test_speed_is_tokens_of_a_cycle_over_its_time() -> None:
    here, server = load_device("rtx-4090-desktop"), load_device("h100-sxm-server")
    draft_s, there = 1 / rate(DRAFT, here.name), rate(LARGE, server.name)
    made = plan_speculation(Case.of(LARGE, here, SCENARIO)._replace(verifier=(server, 0.001)), DRAFT)
    paying = [case for case in made.cases if case.gamma]
    assert paying
    for case in paying:
        a, g = case.acceptance_ratio, case.gamma
        tokens = sum(a**i for i in range(g + 1))  # Leviathan et al. 2023: the first i drafts are all accepted
        # a pass there over g + 1 tokens takes at least one token's time, at most that of decoding each
        slowest, fastest = (g + 1) / there, 1 / there
        speed = case.speedup * there  # where it runs alone: it has no room here
        assert tokens / (g * draft_s + 0.001 + slowest) <= speed <= tokens / (g * draft_s + 0.001 + fastest)


def test_a_longer_way_pays_less_and_at_last_not_at_all() -> None:
    here, server = load_device("rtx-4090-desktop"), load_device("h100-sxm-server")
    near, far, farthest = (
        plan_speculation(Case.of(LARGE, here, SCENARIO)._replace(verifier=(server, trip_s)), DRAFT).cases
        for trip_s in (0.001, 0.01, 10.0)
    )
    assert near[-1].speedup > far[-1].speedup > 1
    assert {(case.gamma, case.speedup) for case in farthest} == {(0, 1.0)}


def test_a_verifier_too_small_is_refused() -> None:
    with pytest.raises(RefusedError, match="does not fit"):
        plan(0.04, "iphone-12")
