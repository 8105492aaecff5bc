"""Budgets against runs: each answer, each limit, with ratios worked out by hand."""

from dataclasses import dataclass, field
from math import exp, log
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from harness.domain.budget import Budget
from harness.domain.prediction import (
    Interval,
    Limit,
    MemoryPart,
    MemoryPrediction,
    PartKind,
    Prediction,
    SpeedPrediction,
    Verdict,
)
from harness.domain.record import (
    SCHEMA_VERSION,
    MachineFingerprint,
    MemoryUse,
    ModelIdentity,
    Outcome,
    RunRecord,
    Sample,
    Validity,
)
from harness.domain.scenario import Scenario
from harness.errors import Exit
from harness.gates.evaluate import evaluate, exit_code
from harness.gates.judge import GateAnswer, decide, judge
from harness.gates.propose import Preset, propose
from harness.gates.streaks import with_streaks
from harness.stats.intervals import Estimate
from harness.stats.runs import Spread, detectable, estimate_of_runs, runs_needed, spread_of_runs

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

    def record(self) -> RunRecord:
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
        return RunRecord(
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


FLOOR = Budget(metric="decode_tokens_per_s", floor=9.0)


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
        pytest.param(FLOOR, Run([8.0, 8.1, 7.9, 8.0]), "fail", Exit.BROKEN, id="below the floor"),
        pytest.param(FLOOR, Run([8.0, 10.5, 9.0, 9.5]), "inconclusive", Exit.INCONCLUSIVE, id="around it"),
        pytest.param(FLOOR, Run([20.0]), "inconclusive", Exit.INCONCLUSIVE, id="one sample is no interval"),
        pytest.param(FLOOR, Run([4.0] * 6, doubts=("busy",)), "inconclusive", Exit.INCONCLUSIVE, id="disturbed"),
        pytest.param(FLOOR, Run(outcome="out of memory"), "could not run", Exit.COULD_NOT_RUN, id="killed"),
        pytest.param(
            Budget(metric="decode_tokens_per_s", floor=9.0, model="other"), Run([10.0] * 4), "could not run",
            Exit.COULD_NOT_RUN, id="no run matches it",
        ),
        # 500 bytes with 1 % given to a single value: 495 .. 505
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
            Budget(metric="decode_tokens_per_s", prediction_ratio=0.85), Run([9.0] * 4), "pass", Exit.OK, id="0.9"
        ),
        pytest.param(
            Budget(metric="decode_tokens_per_s", roofline_ratio=0.5), Run([9.0] * 4), "fail", Exit.BROKEN, id="0.45"
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
    ],
)  # fmt: skip
def test_each_budget(
    monkeypatch: pytest.MonkeyPatch, budget: Budget, run: Run, answer: GateAnswer, status: Exit
) -> None:
    records = [run.record()]
    if budget.predicted:
        monkeypatch.setattr("harness.gates.evaluate.predicted", lambda _device, _model: PREDICTION)

    judgements = evaluate([budget], records)

    assert [j.answer for j in judgements] == [answer]
    assert exit_code(judgements) == status


def test_the_time_between_two_tokens_is_that_of_a_pass_over_all_sequences() -> None:
    record = Run([10.0] * 4).record()
    passes = tuple(structs.replace(s, label="tg10 b4", token_times_s=(0.4,) * 10) for s in record.samples)
    together = structs.replace(record, scenario=Scenario(batch_count=4), samples=passes)

    # 10 tokens/s of four sequences: 0.4 s a pass, as measured
    (judged,) = evaluate([Budget(metric="itl_p50_s", prediction_ratio=1.1)], [together])

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

    (judged,) = evaluate([Budget(metric="ttft_s", label="ttft512 @ cold", prediction_ratio=1.1)], [cold])

    assert judged.answer == answer


def test_a_speed_at_a_depth_is_proposed_and_judged() -> None:
    records = [Run([100.0], turn=turn).record() for turn in range(5)]
    samples = tuple(structs.replace(s, label="tg10 @ d2048") for s in records[0].samples)
    deep = [structs.replace(r, scenario=Scenario(depth_tokens=2048), samples=samples) for r in records]

    budgets = propose(deep)

    # as at depth 0: 100 x 0.95
    assert {b.metric: b.floor for b in budgets} == {"decode_tokens_per_s": 95.0, "peak_memory_bytes": None}


def turns(ratio: float, wobble: float = 0.0) -> tuple[list[RunRecord], list[RunRecord]]:
    """Six turns on a machine that gets slower all the time; the candidate is ``ratio`` as fast."""
    new, old = [], []
    for turn in range(6):
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
    assert judgement.sample_count == 6
    assert judgement.detectable_ratio is not None


def test_a_missing_baseline_is_no_pass() -> None:
    (judged,) = evaluate([Budget(metric="decode_tokens_per_s", baseline_ratio=0.97)], [Run([1.0]).record()])

    assert judged.answer == "could not run"
    assert "no baseline run" in judged.reason


def test_proposals_leave_room_for_noise() -> None:
    records = [Run([100.0], turn=turn).record() for turn in range(5)]

    floor = next(b for b in propose(records) if b.metric == "decode_tokens_per_s")
    ceiling = next(b for b in propose(records) if b.metric == "peak_memory_bytes")

    # five runs alike: no spread, so 100 x 0.95; one peak of 500: 500 x 1.05
    assert floor.floor == 95.0
    assert ceiling.ceiling == 525.0
    assert floor.pin["quant"] == "Q4_0"
    assert floor.pin["machine"] == "x, 2 cores"


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
    assert {(b.metric, k, getattr(b, k)) for b in budgets for k in kinds if getattr(b, k) is not None} == limits


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
    budgets = propose([record])

    assert {j.answer for j in evaluate(budgets, [record])} == {"pass"}
    judged = evaluate(budgets, [structs.replace(record, **changed)])
    assert {j.answer for j in judged} == {"could not run"}
    assert all(said in j.reason for j in judged)
    assert exit_code(judged) == Exit.COULD_NOT_RUN


def test_a_slow_run_is_not_undone_by_a_good_one_beside_it() -> None:
    good, slow = Run([10.0, 10.1, 9.9, 10.0], turn=1).record(), Run([8.0, 8.1, 7.9, 8.0], turn=2).record()

    (judged,) = evaluate([Budget(metric="decode_tokens_per_s", floor=9.4)], [good, slow])

    assert judged.answer == "fail"
    assert judged.evidence == ("r2",)


def test_disturbed_samples_convict_where_no_disturbance_explains_the_miss() -> None:
    record = Run([100.0, 90.0, 110.0], doubts=("busy",)).record()

    # 110 x 3 lies below 1e9, and above 200
    (hopeless,) = evaluate([Budget(metric="decode_tokens_per_s", floor=1e9)], [record])
    (doubtful,) = evaluate([Budget(metric="decode_tokens_per_s", floor=200.0)], [record])

    assert (hopeless.answer, doubtful.answer) == ("fail", "inconclusive")


def test_a_budget_that_stays_inconclusive_is_broken(tmp_path: Path) -> None:
    file = tmp_path / "streaks.json"
    around = evaluate([FLOOR], [Run([8.0, 10.5, 9.0, 9.5]).record()])
    good = evaluate([FLOOR], [Run([12.0] * 5).record()])

    answers = [with_streaks(judged, file)[0].answer for judged in (around, around, good, around, around, around)]

    assert answers == ["inconclusive", "inconclusive", "pass", "inconclusive", "inconclusive", "fail"]


@pytest.mark.parametrize("noise", [0.03, 0.06])
def test_ten_percent_is_found_and_nothing_else(noise: float) -> None:
    """Twenty earlier runs, whose medians differ by ``noise`` from run to run: 200 gates of each kind."""
    generator = np.random.default_rng(7)
    spread = Spread(noise, 20)
    count = runs_needed(log(0.9), 20, spread, 0.98) or 0

    def runs(speed: float, number: int) -> list[list[float]]:
        return [[speed * exp(generator.normal(0, noise))] * 3 for _ in range(number)]

    budget = Budget(metric="decode_tokens_per_s", slowdown_ratio=0.10, confidence=0.98)

    def answers(speed: float) -> list[str]:
        gates = []
        for _ in range(200):
            old = runs(100.0, 20)
            learnt = spread_of_runs(old)
            estimate = estimate_of_runs(runs(speed, count), learnt, 0.98, old)
            judged = judge(budget, estimate, learnt, (count, 20), level=0.98, evidence=())
            gates.append(judged.answer)
        return gates

    assert answers(100.0).count("fail") <= 4  # false in 1 of 100, and what 200 gates can tell
    assert answers(100.0).count("pass") >= 180
    assert answers(90.0).count("fail") >= 180  # 95 of 100 are promised; the spread is learnt from 20 runs


def test_what_turns_can_show_by_hand() -> None:
    # t(.975, 2) = 4.302653, t(.95, 2) = 2.919986; three turns with a spread of 1 %
    turns = estimate_of_runs([[1.0]] * 3, Spread(0.01, 3), 0.95)
    assert detectable(turns, Spread(0.01, 3), 0.95) == pytest.approx(1 - exp(-7.222639 * 0.01 / 3**0.5), rel=1e-5)
    # z(.975) + z(.95) = 3.604817; (3.604817 x 0.02 / ln(1.05 / 1.03))^2 = 14.06 runs, with the spread assumed
    assert runs_needed(log(1.05 / 1.03), 0, Spread(0.02, 0), 0.95) == 15
    assert runs_needed(0.0, 0, Spread(0.02, 0), 0.95) is None


@pytest.mark.parametrize(
    ("metric", "limit", "reason"),
    [
        ("decode_tokens_per_s", {"floor": 2.0}, ("inconclusive", "every sample was disturbed: busy")),
        # energy was never measured
        ("joules_per_token", {"ceiling": 1.0}, ("could not run", "the runs hold no sample of this metric")),
    ],
)
def test_a_missing_value_says_why(metric, limit, reason) -> None:
    (judged,) = evaluate([Budget(metric=metric, **limit)], [Run([1.0] * 6, doubts=("busy",)).record()])

    assert (judged.answer, judged.reason) == reason


def test_an_inconclusive_gate_names_the_disturbance_and_what_would_settle_it() -> None:
    noisy = Run([8.0, 10.5, 9.3, 9.5, 8.9, 9.7]).record()
    busy = Run([9.0], doubts=("others used 34 % of the CPUs",)).record()

    (judged,) = evaluate([FLOOR], [noisy, busy])

    assert judged.answer == "inconclusive"
    assert "disturbed by: others used 34 % of the CPUs (1 of 7 samples)" in judged.reason
    assert "would settle it" in judged.reason
