"""Decisions whose one-line changes nothing else noticed: limits other than 1, orders of time, what is said."""

from types import SimpleNamespace

import pytest
from msgspec import structs

from harness.core.budget import Budget
from harness.core.record import Sample
from harness.core.scenario import Scenario
from harness.core.stats.intervals import Estimate
from harness.core.stats.runs import Spread
from harness.gates.baselines import update
from harness.gates.evaluate import evaluate
from harness.gates.judge import Errors, Judgement, judge
from harness.gates.pins import anchor, pins_of
from harness.records.store import load, save
from tests.unit.gates.test_gate_decisions import PREDICTION
from tests.unit.gates.test_meant_to_run import FLOOR, GOOD, NAME, run

PHONE = {"device": "phone", "model": "tiny", "predicted": True}


@pytest.mark.parametrize(
    ("budget", "answer", "margin"),
    [
        # the interval is 8 .. 12 tokens/s, and 800 .. 1000 bytes; the margin is worst / limit - 1
        (Budget(metric="decode_tokens_per_s", floor=7.5, **PHONE), "pass", 8 / 7.5 - 1),
        (Budget(metric="decode_tokens_per_s", floor=8.1, **PHONE), "fail", 8 / 8.1 - 1),
        (Budget(metric="decode_tokens_per_s", floor=0.1, **PHONE), "pass", 79.0),
        (Budget(metric="peak_memory_bytes", ceiling=1001.0, **PHONE), "pass", 1 - 1000 / 1001),
        (Budget(metric="peak_memory_bytes", ceiling=999.0, **PHONE), "fail", 1 - 1000 / 999),
        (Budget(metric="peak_memory_bytes", ceiling=0.5, **PHONE), "fail", -1999.0),
    ],
)
def test_a_predicted_budget_by_any_limit(
    monkeypatch: pytest.MonkeyPatch, budget: Budget, answer: str, margin: float
) -> None:
    told = SimpleNamespace(prediction=PREDICTION, scenario=Scenario(), runs=True)
    monkeypatch.setattr("harness.gates.evaluate.answer", lambda _question, advises: told)

    (judged,) = evaluate([budget], [])

    assert (judged.answer, judged.margin_ratio) == (answer, pytest.approx(margin))


def _one(budget: Budget, *records) -> Judgement:
    (judged,) = evaluate([budget], records)
    return judged


def test_an_older_run_of_another_setting_is_no_objection() -> None:
    other = structs.replace(GOOD, scenario=structs.replace(GOOD.scenario, thread_count=7))
    pinned = FLOOR.replace(pin=pins_of(GOOD))

    assert _one(pinned, run("other", 0, base=other), run("new", 1)).answer == "pass"
    assert _one(pinned, run("new", 0), run("other", 0, base=other)).answer == "could not run"
    assert _one(pinned, run("new", 0), run("other", 1, base=structs.replace(other, workload="stream"))).answer == "pass"


def test_a_failed_run_that_its_budget_names_is_told_as_such() -> None:
    failed = structs.replace(run("bad"), outcome="crashed", detail="SIGSEGV\nmore")

    assert _one(FLOOR, failed).reason == "bad: crashed (SIGSEGV)"
    assert "no budget names smollm2-135m" in _one(FLOOR.replace(model="x"), failed).reason


def _timed(*durations_s: float):
    samples = tuple(
        Sample(phase="first_token", label="ttft512", token_count=512, duration_s=one, started_unix_s=0.0)
        for one in durations_s
    )
    return structs.replace(GOOD, samples=samples)


def test_of_values_with_a_0_the_worst_one_counts() -> None:
    cost = Budget(metric="ttft_s", ceiling=0.5, model=NAME)

    assert (_one(cost, _timed(0.0, 1.0, 0.2)).answer, _one(cost, _timed(0.0, 0.4)).answer) == ("fail", "pass")
    none = tuple(structs.replace(one, token_count=0) for one in GOOD.samples if one.phase == "decode")
    assert _one(FLOOR, structs.replace(GOOD, samples=none)).answer == "fail"


def test_a_value_of_0_beside_a_baseline_is_no_evidence() -> None:
    """No ratio can be made of it, whichever side has it: neither a pass nor a failure."""
    no_slower = Budget(metric="ttft_s", baseline_ratio=1.1, model=NAME)
    sound, zero = _timed(0.2, 0.2, 0.2), _timed(0.0, 0.0, 0.0)

    for new, old in ((zero, sound), (sound, zero)):
        (judged,) = evaluate([no_slower], [new], baseline=[structs.replace(old, run_id="old")])
        assert judged.answer == "could not run", judged
        assert "a value is 0" in judged.reason


def test_three_others_are_named_and_the_rest_is_counted() -> None:
    others = [structs.replace(GOOD, run_id=f"r{n}", model=structs.replace(GOOD.model, name=f"m{n}")) for n in range(4)]
    nobody = FLOOR.replace(model="nobody")

    assert "and" not in _one(nobody, *others[:3]).reason.partition("there is ")[2]
    assert _one(nobody, *others).reason.endswith("m2 on this machine and 1 more")


def test_what_is_kept_as_the_baseline_is_the_newest_in_every_zone(tmp_path) -> None:
    """Twenty-one runs of one kind: the oldest goes, which as text is the newest."""
    times = ["2026-09-01T13:30:00+14:00", *(f"2026-09-01T{n:02}:00:00+00:00" for n in range(20))]
    for n, made in enumerate(times):
        save(structs.replace(run(f"r{n}"), created=made), tmp_path / "there" / f"r{n}.json")
    records = [load(path) for path in sorted((tmp_path / "there").glob("*.json"))]

    assert update(tmp_path / "kept", records) == (21, 1)
    assert not (tmp_path / "kept" / "r0.json").exists()


@pytest.mark.parametrize("limit", ["prediction_ratio", "roofline_ratio"])
def test_a_ratio_to_what_nobody_predicted_is_no_evidence(limit: str) -> None:
    budget = Budget(metric="decode_tokens_per_s", model=NAME, **{limit: 0.01})

    assert _one(budget, run("told")).answer == "pass"
    assert _one(budget, structs.replace(run("untold"), prediction=None)).answer == "could not run"


def _build(version: str, hours: float, factor: float, count: int = 5):
    base = structs.replace(GOOD, engine=structs.replace(GOOD.engine, version=version))
    return [run(f"{version}-{n}", hours + n / 60, factor=factor, base=base) for n in range(count)]


def test_releases_are_held_to_the_best_of_the_last_twenty_builds() -> None:
    """Each takes 15 % longer than the one before: not red beside that one, but beside the best one."""
    slower = Budget(metric="decode_tokens_per_s", slowdown_ratio=0.1, model=NAME)
    releases = [_build(f"v{n}", n * 0.15, 1.15**n) for n in range(9)]
    before = [one for release in releases[:8] for one in release]

    (beside_the_last,) = evaluate([slower], releases[8], baseline=releases[7])
    (beside_all,) = evaluate([slower], releases[8], baseline=before)

    assert beside_the_last.answer != "fail"
    assert beside_all.answer == "fail"
    assert "the best of 8 builds" in beside_all.reason
    assert set(beside_all.evidence) == {one.run_id for one in (*releases[0], *releases[8])}


def test_the_anchor_is_no_lucky_single_run_and_none_of_long_ago() -> None:
    lucky = _build("lucky", 5, 0.5, count=1)
    usual = _build("usual", 4, 1.0)
    old = _build("old", -100, 0.8)

    assert anchor([*usual, *lucky], "decode_tokens_per_s") == (usual, 2)
    assert anchor([*usual, *lucky], "itl_p50_s")[0] == usual
    assert anchor([*old, *usual], "decode_tokens_per_s") == (old, 2)
    later = [one for n in range(19) for one in _build(f"w{n}", 6 + n, 1.2)]
    assert anchor([*old, *usual, *later], "decode_tokens_per_s")[0] == usual
    assert anchor([*old, *usual, *later], "decode_tokens_per_s")[1] == 20


def test_a_pass_names_what_it_would_have_failed() -> None:
    """Of a floor of 64 the upper end, 101, must fall below it; of a ceiling the lower end must rise above."""
    given = {"errors": Errors.of(1, 1), "evidence": ()}
    speed = judge(
        Budget(metric="decode_tokens_per_s", floor=64.0), Estimate(100.0, 99.0, 101.0, 6), Spread(0.1), (3, 0), **given
    )
    cost = judge(Budget(metric="ttft_s", ceiling=4.0), Estimate(2.0, 1.9, 2.1, 6), Spread(0.1), (3, 0), **given)

    assert speed.fails_from_ratio == pytest.approx(1 - 64 / 101)
    assert cost.fails_from_ratio == pytest.approx(4 / 1.9 - 1)
