"""Budgets against runs: each answer, each limit, with ratios worked out by hand."""

from dataclasses import dataclass, field
from math import exp, log
from types import SimpleNamespace

import numpy as np
import pytest
from msgspec import structs

from harness.core.budget import Budget
from harness.core.errors import Exit
from harness.core.prediction import (
    Interval,
    Limit,
    MemoryPart,
    MemoryPrediction,
    PartKind,
    Prediction,
    SpeedPrediction,
    Verdict,
)
from harness.core.record import (
    SCHEMA_VERSION,
    MachineFingerprint,
    MemoryUse,
    ModelIdentity,
    Outcome,
    Record,
    Sample,
    Validity,
)
from harness.core.scenario import Scenario
from harness.core.stats.intervals import Estimate
from harness.core.stats.runs import Spread, estimate, found, runs_needed, spread_of
from harness.gates.evaluate import evaluate, exit_code
from harness.gates.judge import Errors, GateAnswer, decide, judge, limit_of
from harness.gates.propose import Preset, propose

MACHINE = MachineFingerprint(
    system="Linux",
    kernel="6",
    cpu_model="x",
    core_count=2,
    ram_bytes=1,
    memory_limit_bytes=1,
    isa=(),
    python="3.11",
    device="board",
)
MODEL = ModelIdentity(name="tiny", quant="Q4_0", size_bytes=1000, sha256="0", architecture="llama", parameter_count=1)


def same(value: float) -> Interval:
    return Interval(mid=value, low=value, high=value)


PREDICTION = Prediction(
    device="phone",
    model="tiny",
    quant="Q4_0",
    api="cpu",
    memory=MemoryPrediction(
        parts=(MemoryPart(PartKind.WEIGHTS, anonymous_bytes=900, reason="by hand"),),
        peak_bytes=Interval(mid=900, low=800, high=1000),
    ),
    speed=SpeedPrediction(
        decode_tokens_per_s=Interval(mid=10, low=8, high=12),
        prefill_tokens_per_s=same(100),
        ttft_cold_s=same(1),
        ttft_warm_s=same(1),
        load_cold_s=same(1),
        load_warm_s=same(1),
        active_bytes=1,
        kv_read_bytes=0,
        roofline_tokens_per_s=20.0,
        limits={},
    ),
    verdict=Verdict(word="fits", binding_limit=Limit.APP_MEMORY, needed_bytes=1, available_bytes=2),
)


@dataclass
class Run:
    speeds: list[float] = field(default_factory=list)
    outcome: Outcome = "ok"
    doubts: tuple[str, ...] = ()
    turn: int = 0
    peak: int = 500

    def record(self) -> Record:
        samples = tuple(
            Sample(
                phase="decode",
                label="tg10",
                token_count=10,
                duration_s=10 / v,
                started_unix_s=0,
                validity=Validity(doubts=self.doubts),
            )
            for v in self.speeds
        )
        return Record(
            schema_version=SCHEMA_VERSION,
            run_id=f"r{self.turn}",
            created=f"2026-01-01T00:00:{self.turn:02d}Z",
            harness_version="0",
            command=(),
            workload="generate",
            machine=MACHINE,
            scenario=Scenario(),
            outcome=self.outcome,
            model=MODEL,
            samples=samples,
            memory=MemoryUse(peak_rss_bytes=self.peak),
            prediction=PREDICTION,
        )


FLOOR = Budget(metric="decode_tokens_per_s", floor=8.0)


@pytest.mark.parametrize(
    ("low", "high", "higher", "answer"),
    [
        (1.0, 2.0, True, "pass"),
        (0.5, 0.99, True, "fail"),
        (0.99, 1.01, True, "inconclusive"),
        (0.5, 1.0, False, "pass"),
        (1.01, 2.0, False, "fail"),
        (None, None, True, "inconclusive"),
    ],
)
def test_three_answers(low: float | None, high: float | None, higher: bool, answer: GateAnswer) -> None:
    assert decide(Estimate(1.0, low, high, 6), 1.0, higher_is_better=higher) == answer


@pytest.mark.parametrize(
    ("budget", "run", "answer", "status"),
    [
        pytest.param(FLOOR, Run([10.0, 10.1, 9.9, 10.0]), "pass", Exit.OK, id="above the floor"),
        pytest.param(FLOOR, Run([6.0, 6.1, 5.9, 6.0]), "fail", Exit.BROKEN, id="below the floor"),
        pytest.param(FLOOR, Run([8.0, 10.5, 9.0, 9.5]), "inconclusive", Exit.INCONCLUSIVE, id="around it"),
        pytest.param(FLOOR, Run([20.0]), "pass", Exit.OK, id="one sample that nothing makes a miss"),
        pytest.param(FLOOR, Run([4.0] * 6, doubts=("busy",)), "inconclusive", Exit.INCONCLUSIVE, id="disturbed"),
        pytest.param(FLOOR, Run(outcome="out of memory"), "could not run", Exit.COULD_NOT_RUN, id="killed"),
        pytest.param(
            Budget(metric="decode_tokens_per_s", floor=8.0, model="other"), Run([10.0] * 4), "could not run",
            Exit.COULD_NOT_RUN, id="no run matches it",
        ),
        # 500 bytes, of which .3 % is the spread: z(.99) of it, .70 %, to accuse; z(.95), .49 %, to acquit
        pytest.param(Budget(metric="peak_memory_bytes", ceiling=505.0), Run(peak=500), "pass", Exit.OK, id="memory"),
        pytest.param(
            Budget(metric="peak_memory_bytes", ceiling=494.0), Run(peak=500), "fail", Exit.BROKEN, id="memory over"
        ),
        pytest.param(
            Budget(metric="peak_memory_bytes", ceiling=500.0), Run(peak=500), "inconclusive", Exit.INCONCLUSIVE,
            id="memory within its own spread",
        ),
        pytest.param(Budget(metric="file_bytes", ceiling=1000.0), Run(), "pass", Exit.OK, id="file to the byte"),
        # predicted 10: 9 tokens/s is 0.9 of it; the roofline is 20: 0.45 of it
        pytest.param(
            Budget(metric="decode_tokens_per_s", prediction_ratio=0.7), Run([9.0] * 4), "pass", Exit.OK, id="0.9"
        ),
        pytest.param(
            Budget(metric="decode_tokens_per_s", roofline_ratio=0.6), Run([9.0] * 4), "fail", Exit.BROKEN, id="0.45"
        ),
        # the 90 % interval of the prediction for the phone is 8 .. 12, its memory 800 .. 1000
        pytest.param(
            Budget(metric="decode_tokens_per_s", floor=8.0, predicted=True, device="phone", model="tiny"), Run(),
            "pass",
            Exit.OK, id="predicted",
        ),
        pytest.param(
            Budget(metric="peak_memory_bytes", ceiling=999.0, predicted=True, device="phone", model="tiny"), Run(),
            "fail", Exit.BROKEN, id="upper bound of memory passes the limit",
        ),
        # of it 900 are anonymous: half as sure as the peak, whose ends lie 100 away, so 850 .. 950
        pytest.param(
            Budget(metric="peak_anonymous_bytes", ceiling=949.0, predicted=True, device="phone", model="tiny"), Run(),
            "fail", Exit.BROKEN, id="upper bound of anonymous memory",
        ),
    ],
)  # fmt: skip
def test_each_budget(
    monkeypatch: pytest.MonkeyPatch, budget: Budget, run: Run, answer: GateAnswer, status: Exit
) -> None:
    records = [run.record()]
    if budget.predicted:
        told = SimpleNamespace(prediction=PREDICTION, scenario=Scenario(), runs=True)
        monkeypatch.setattr("harness.gates.evaluate.answer", lambda _question, advises: told)

    judgements = evaluate([budget], records)

    assert [j.answer for j in judgements] == [answer]
    assert exit_code(judgements) == status


def test_the_time_between_two_tokens_is_that_of_a_pass_over_all_sequences() -> None:
    record = Run([10.0] * 4).record()
    passes = tuple(structs.replace(s, label="tg10 b4", token_times_s=(0.4,) * 10) for s in record.samples)
    together = structs.replace(record, scenario=Scenario(batch_count=4), samples=passes)

    # 10 tokens/s of four sequences: 0.4 s a pass, as measured
    (judged,) = evaluate([Budget(metric="itl_p50_s", prediction_ratio=1.2)], [together])

    assert (judged.answer, judged.value) == ("pass", pytest.approx(1.0))


@pytest.mark.parametrize(
    ("scenario", "answer"),
    [
        (Scenario(), "pass"),  # 1 s was predicted with a cold file
        (Scenario(depth_tokens=2048), "could not run"),
        (Scenario(batch_count=4), "could not run"),
    ],
)
def test_a_cold_first_token_is_predicted_for_one_prompt_in_an_empty_cache(scenario: Scenario, answer: str) -> None:
    record = Run([10.0] * 4).record()
    waits = tuple(structs.replace(s, phase="first_token", label="ttft512 @ cold") for s in record.samples)
    cold = structs.replace(record, scenario=scenario, samples=waits)  # each took 1 s

    (judged,) = evaluate([Budget(metric="ttft_s", label="ttft512 @ cold", prediction_ratio=1.2)], [cold])

    assert judged.answer == answer


def test_a_speed_at_a_depth_is_proposed_and_judged() -> None:
    records = [Run([100.0], turn=turn).record() for turn in range(5)]
    samples = tuple(structs.replace(s, label="tg10 @ d2048") for s in records[0].samples)
    deep = [structs.replace(r, scenario=Scenario(depth_tokens=2048), samples=samples) for r in records]

    budgets = propose(deep)

    # of one hour: 100 exp(-z(1 - .01 / 2) sqrt(2) 10 %) = 69.47 would pass a build 20 % slower: .8 ** .6 = .8747
    assert {b.metric: b.floor for b, *_ in budgets} == {"decode_tokens_per_s": 87.4, "peak_memory_bytes": None}


def turns(ratio: float, wobble: float = 0.0) -> tuple[list[Record], list[Record]]:
    """Six turns on a machine that gets slower all the time; the candidate is ``ratio`` as fast."""
    new, old = [], []
    for turn in range(12):
        drift = 100.0 * 0.8**turn
        noise = 1 + wobble * (1 if turn % 2 else -1)
        new.append(Run([drift * ratio * noise], turn=2 * turn).record())
        old.append(Run([drift], turn=2 * turn + 1).record())
    return new, old


@pytest.mark.parametrize(
    ("ratio", "wobble", "answer"),
    [(1.0, 0.0, "pass"), (0.98, 0.0, "pass"), (0.9, 0.0, "fail"), (0.96, 0.05, "inconclusive")],
)
def test_turns_cancel_drift(ratio: float, wobble: float, answer: GateAnswer) -> None:
    new, old = turns(ratio, wobble)

    (judgement,) = evaluate([Budget(metric="decode_tokens_per_s", baseline_ratio=0.97)], new, baseline=old)

    assert judgement.answer == answer
    assert judgement.sample_count == 12
    assert judgement.detectable_ratio is not None


def test_a_missing_baseline_is_no_pass() -> None:
    (judged,) = evaluate([Budget(metric="decode_tokens_per_s", baseline_ratio=0.97)], [Run([1.0]).record()])

    assert judged.answer == "could not run"
    assert "no baseline run" in judged.reason


def test_proposals_of_one_hour_leave_room_for_others_and_pass_nothing_a_fifth_slower() -> None:
    records = [Run([100.0], turn=turn).record() for turn in range(5)]

    found = {budget.metric: budget for budget, *_ in propose(records)}

    # z(1 - .01 / 2) = 2.5758; times sqrt(2): .3 % for a peak; for a speed 10 %, which would pass one 20 % slower
    assert found["decode_tokens_per_s"].floor == pytest.approx(87.4)
    assert found["peak_memory_bytes"].ceiling == pytest.approx(500 * exp(0.010928), rel=0.01)
    assert found["decode_tokens_per_s"].pin["quant"] == "Q4_0"
    assert found["decode_tokens_per_s"].pin["machine"] == "x, 2 cores"
    assert {"api", "memory_limit_bytes", "target", "runtime", "runtime_version", "kv_type", "value_type"} <= set(
        found["decode_tokens_per_s"].pin
    )


def test_proposals_of_several_days_are_held_to_what_these_differ_by() -> None:
    speeds = (97.0, 103.0, 100.0, 98.0, 102.0, 100.0)
    days = [Run([speed] * 3).record() for speed in speeds]
    days = [structs.replace(r, run_id=f"d{i}", created=f"2026-01-{i + 1:02d}T00:00:00Z") for i, r in enumerate(days)]

    ((budget, finds, _),) = [p for p in propose(days) if p.budget.metric == "decode_tokens_per_s"]

    logs = [log(speed) for speed in speeds]
    mean = sum(logs) / 6
    told = (sum((each - mean) ** 2 for each in logs) / 5) ** 0.5
    # t(1 - .01 / 2 / 2, 5) = 4.7733 told sqrt(1 + 1 / 6): narrower than z(1 - .01 / 2 / 2) = 2.8070 times 10 %
    assert budget.floor == pytest.approx(exp(mean - 4.7733 * told * (7 / 6) ** 0.5), rel=0.01)
    assert "sittings differ by 2.3%" in finds


@pytest.mark.parametrize(
    ("runs", "finds", "lacks"),
    [
        pytest.param([100.0, 100.5, 99.5, 100.2, 99.8], 0.2, "", id="a fifth, of quiet runs"),
        pytest.param([100.0, 104.0, 97.0, 101.0, 95.0], 0.1, "10% needs ", id="a tenth, of noisy runs"),
        pytest.param([100.0, 130.0, 80.0, 120.0, 75.0], 0.1, "no number of runs is sure", id="a tenth, of wild runs"),
    ],
)
def test_a_budget_is_written_only_where_it_finds_what_is_asked(runs: list[float], finds: float, lacks: str) -> None:
    records = [Run([speed] * 3, turn=turn).record() for turn, speed in enumerate(runs)]

    (found,) = [p for p in propose(records, "limits", finds) if p.budget.metric == "decode_tokens_per_s"]

    assert found.budget.floor == pytest.approx(found.budget.floor)
    assert (lacks in found.lacks) if lacks else not found.lacks


@pytest.mark.parametrize(
    ("preset", "limits"),
    [
        ("regression", {("decode_tokens_per_s", "slowdown_ratio", 0.1)}),
        ("phone", {("decode_tokens_per_s", "slowdown_ratio", 0.1), ("peak_memory_bytes", "ceiling", 200_000_500.0)}),
        ("first-token", set()),  # no first token was timed
    ],
)
def test_presets(preset: Preset, limits: set[tuple[str, str, float]]) -> None:
    budgets = propose([Run([100.0] * 3).record()], preset)

    kinds = ("slowdown_ratio", "ceiling", "floor")
    assert {(b.metric, k, getattr(b, k)) for b, *_ in budgets for k in kinds if getattr(b, k) is not None} == limits


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"scenario": Scenario(kv_type="Q4_0")}, "kv_type is 'Q4_0', pinned is 'F16'"),
        ({"scenario": Scenario(new_tokens=8)}, "new_tokens is 8, pinned is 128"),
        ({"model": structs.replace(MODEL, quant="Q2_K")}, "quant is 'Q2_K', pinned is 'Q4_0'"),
        ({"model": structs.replace(MODEL, sha256="1")}, "model_sha256 is '1', pinned is '0'"),
        ({"machine": structs.replace(MACHINE, cpu_model="faster")}, "machine is 'faster, 2 cores'"),
        ({"runtime": "ort"}, "runtime is 'ort', pinned is ''"),
    ],
)
def test_another_file_setting_or_machine_is_no_evidence(changed: dict[str, object], said: str) -> None:
    record = Run([100.0] * 5).record()
    budgets = [budget for budget, *_ in propose([record], finds_ratio=0.4)]

    assert {j.answer for j in evaluate(budgets, [record])} == {"pass"}
    judged = evaluate(budgets, [structs.replace(record, **changed)])
    assert {j.answer for j in judged} == {"could not run"}
    assert all(said in j.reason for j in judged)
    assert exit_code(judged) == Exit.COULD_NOT_RUN


def test_a_slow_run_beside_a_good_one_is_no_pass() -> None:
    good, slow = Run([10.0, 10.1, 9.9, 10.0], turn=1).record(), Run([8.0, 8.1, 7.9, 8.0], turn=2).record()

    (judged,) = evaluate([Budget(metric="decode_tokens_per_s", floor=8.5)], [good, slow])

    assert judged.answer == "inconclusive"
    assert judged.evidence == ("r1", "r2")


def test_disturbed_samples_convict_nobody() -> None:
    """A busy neighbour made 0.44 tokens/s of 100: no factor tells a slow build from a disturbed one."""
    record = Run([0.44, 0.43, 0.45], doubts=("busy",)).record()

    (judged,) = evaluate([Budget(metric="decode_tokens_per_s", floor=90.0)], [record])

    assert judged.answer == "inconclusive"


@pytest.mark.parametrize("noise", [0.03, 0.06])
def test_blocks_of_runs_pass_the_same_build_and_accuse_one_beyond_what_machines_do(noise: float) -> None:
    """Twenty earlier runs, whose medians differ by ``noise`` from run to run: 200 gates of each kind."""
    generator = np.random.default_rng(7)
    budget = Budget(metric="decode_tokens_per_s", slowdown_ratio=0.10)
    errors = Errors.of(8, 1)
    count = runs_needed(log(0.9), (0, 20), Spread(0.1, noise, 19), errors.alarm)
    if noise > 0.05:
        assert (
            count == 16
        )  # by hand, as below: t(1 - .01 / 16, 34) = 3.520; 5.165 x .06 x sqrt(1 / 16 + 1 / 20) = .1039
    assert count is not None

    def runs(speed: float, number: int) -> list[list[float]]:
        return [[speed * exp(generator.normal(0, noise))] * 3 for _ in range(number)]

    def answers(speed: float) -> list[str]:
        gates = []
        for _ in range(200):
            old, new = runs(100.0, 20), runs(speed, count)
            learnt = spread_of([new, old], 0.1)
            value = estimate(new, learnt, errors.missed, errors.alarm, old)
            judged = judge(budget, value, learnt, (count, 20), errors=errors, evidence=())
            gates.append(judged.answer)
        return gates

    assert answers(100.0).count("fail") <= 2  # 1 of 800
    assert answers(100.0).count("pass") >= 170
    # A machine may do that by itself between two blocks of runs: turns tell, and a larger change is told.
    assert answers(90.0).count("fail") == 0
    assert answers(90.0).count("pass") <= 20  # 5 of 100 of a build on its limit
    assert answers(65.0).count("fail") >= 190


def test_what_turns_can_show_by_hand() -> None:
    # t(.975, 2) = 4.302653, z(.95) = 1.644854; three turns with a spread of 1 %
    assert found(Spread(None, 0.01, 2), (3, 0), 0.025) == pytest.approx(1 - exp(-5.947507 * 0.01 / 3**0.5), rel=1e-5)
    # of 14 runs beside a spread of 2 %: t(.975, 13) = 2.160369; (2.160369 + 1.644854) x 0.02 / sqrt(14) = .02034
    assert runs_needed(0.0203, (0, 0), Spread(None, 0.02, 0), 0.025) == 15
    assert runs_needed(0.0204, (0, 0), Spread(None, 0.02, 0), 0.025) == 14
    assert runs_needed(0.0, (0, 0), Spread(None, 0.02, 0), 0.025) is None


@pytest.mark.parametrize(
    ("budget", "limit"),
    [
        (Budget(metric="decode_tokens_per_s", slowdown_ratio=0.2), 0.8),
        (Budget(metric="ttft_s", slowdown_ratio=0.2), 1.25),  # 20 % slower: of a second's work .8 is done
    ],
)
def test_the_limit_of_a_slowdown(budget: Budget, limit: float) -> None:
    assert limit_of(budget) == (pytest.approx(limit), "baseline")


@pytest.mark.parametrize(
    ("mid", "answer"),
    # sqrt(.81) = .9: on the faster side of it a slowdown that is surely one is not the one that must be found
    [(0.91, "inconclusive"), (0.89, "fail")],
)
def test_half_of_the_slowdown_in_logs_is_the_middle_that_breaks(mid: float, answer: str) -> None:
    estimate_there = Estimate(mid, 0.80, 0.95, 6)
    cost = Estimate(1 / mid, 1 / 0.95, 1 / 0.80, 6)

    assert decide(estimate_there, 0.81, higher_is_better=True, finds_slowdown=True) == answer
    assert decide(cost, 1 / 0.81, higher_is_better=False, finds_slowdown=True) == answer


@pytest.mark.parametrize(
    ("metric", "ratio", "words"),
    [
        ("decode_tokens_per_s", 1.203, "20.3% faster than the baseline"),
        ("decode_tokens_per_s", 0.8, "20.0% slower than the baseline"),
        ("ttft_s", 1.203, "20.3% slower than the baseline"),
        ("peak_memory_bytes", 1.203, "20.3% more than the baseline"),
    ],
)
def test_a_change_is_of_the_figure_that_is_named(metric: str, ratio: float, words: str) -> None:
    budget = Budget(metric=metric, slowdown_ratio=0.1)
    value = Estimate(ratio, ratio, ratio, 6)

    judged = judge(budget, value, Spread(0.1), (1, 1), errors=Errors.of(1, 1), evidence=())

    assert judged.change == words


@pytest.mark.parametrize(
    ("metric", "limit", "reason"),
    [
        ("decode_tokens_per_s", {"floor": 2.0}, ("inconclusive", "every sample was disturbed: busy")),
        # energy was never measured
        (
            "joules_per_token",
            {"ceiling": 1.0},
            ("could not run", "the runs hold no sample of this metric: joules_per_token was not measured"),
        ),
    ],
)
def test_a_missing_value_says_why(metric, limit, reason) -> None:
    (judged,) = evaluate([Budget(metric=metric, **limit)], [Run([1.0] * 6, doubts=("busy",)).record()])

    assert (judged.answer, judged.reason) == reason


def test_an_inconclusive_gate_names_the_disturbance_and_what_would_settle_it() -> None:
    noisy = Run([8.0, 10.5, 9.3, 9.5, 8.9, 9.7]).record()
    busy = Run([9.0], doubts=("others used 34 % of the CPUs",)).record()

    (judged,) = evaluate([Budget(metric="decode_tokens_per_s", floor=9.0)], [noisy, busy])

    assert judged.answer == "inconclusive"
    assert "disturbed by: others used 34 % of the CPUs (1 of 7 samples)" in judged.reason
    assert "3 runs, which tell how much they differ" in judged.reason
