"""Drafts here, verified elsewhere: by hand from the speeds of both, and the round trip where it stops paying."""

import pytest

from harness.app.fit import predict
from harness.app.plans import plan_remote
from harness.app.resolve import resolve_model
from harness.catalog.devices import load_device
from harness.domain.scenario import Scenario
from harness.errors import RefusedError

SCENARIO = Scenario()
TARGET, DRAFT = resolve_model("llama-3.1-8b", "Q4_K_M"), resolve_model("llama-3.2-1b", "Q4_K_M")
HERE, THERE = load_device("macbook-air-m3"), load_device("h100-sxm-server")
NOW = predict(TARGET, HERE, SCENARIO)


def plan(round_trip_s):
    return plan_remote(NOW, TARGET, DRAFT, HERE, THERE, SCENARIO, round_trip_s)


def test_speed_is_tokens_of_a_cycle_over_its_time():
    found = plan(0.04)
    draft_s = 1 / predict(DRAFT, HERE, SCENARIO).speed.decode_tokens_per_s.mid
    for case in found.cases:
        a, g = case.acceptance_ratio, case.gamma
        tokens = sum(a**i for i in range(g + 1))  # Leviathan et al. 2023: the first i drafts are all accepted
        # a pass there over g + 1 tokens takes at least one token's time, at most that of decoding each
        slowest, fastest = ((g + 1) / found.there_tokens_per_s, 1 / found.there_tokens_per_s)
        assert tokens / (g * draft_s + 0.04 + slowest) <= case.tokens_per_s <= tokens / (g * draft_s + 0.04 + fastest)
        assert case.speedup == pytest.approx(case.tokens_per_s / NOW.speed.decode_tokens_per_s.mid)


def test_at_the_break_even_it_is_as_fast_as_decoding_here():
    best = plan(0.0).cases[-1]
    assert best.break_even_s > 0
    at = plan(best.break_even_s).cases[-1]
    assert at.tokens_per_s == pytest.approx(NOW.speed.decode_tokens_per_s.mid, rel=1e-9)
    assert plan(2 * best.break_even_s).cases[-1].speedup < 1 < plan(0.5 * best.break_even_s).cases[-1].speedup


def test_a_verifier_too_small_is_refused():
    with pytest.raises(RefusedError, match="does not fit"):
        plan_remote(NOW, TARGET, DRAFT, HERE, load_device("iphone-12"), SCENARIO, 0.04)
