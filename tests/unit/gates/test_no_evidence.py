"""What is no evidence for this build, and budgets that must not stay undecided: each was green once."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from math import log
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec import structs

from harness.answer.answer import answer
from harness.cli import cli
from harness.core.budget import Budget
from harness.core.errors import BadDataError, Exit, RefusedError
from harness.core.metric import metric_values
from harness.core.prediction import Interval
from harness.core.question import Question
from harness.core.record import ModelIdentity, Record
from harness.core.stats.intervals import Estimate
from harness.core.stats.runs import Spread, spread_of
from harness.gates.evaluate import evaluate, exit_code
from harness.gates.formats import summary
from harness.gates.judge import Errors, judge, judgement_of
from harness.gates.live import gate_in_turns
from harness.gates.past_answers import keep_answers, read_answers, with_deadlines
from harness.gates.pins import pins_of
from harness.gates.sittings import alternate, comparable, sittings_of
from harness.records.store import load, save
from harness.verbs.results import gather

GOOD = load(Path(__file__).parents[2] / "records" / "v2-smollm2-135m.json")
assert isinstance(GOOD.model, ModelIdentity)
NAME = GOOD.model.name
MEMORY = Budget(metric="peak_memory_bytes", ceiling=1e12, model=NAME)
SPEED = Budget(metric="decode_tokens_per_s", slowdown_ratio=0.1, model=NAME)


def run(name: str, minutes: float = 0.0, **fields: object) -> Record:
    made = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    return structs.replace(GOOD, run_id=name, created=made.isoformat(), **fields)


REFUSED = run("today", 60 * 24, outcome="refused", model=None, samples=(), memory=None, extra={"model": NAME})


@pytest.mark.parametrize(
    ("today", "said"),
    [
        pytest.param(REFUSED, "today: refused", id="it could not have its model"),
        pytest.param(
            structs.replace(REFUSED, extra={"model": "smolm2"}), "no budget names smolm2", id="a slip in its name"
        ),
        pytest.param(structs.replace(REFUSED, extra={}), "may be the run that was meant", id="it has no name at all"),
    ],
)
def test_a_failed_run_is_not_made_good_by_the_one_of_yesterday(today: Record, said: str) -> None:
    judged = evaluate([MEMORY], [run("yesterday"), today])

    assert exit_code(judged) == Exit.COULD_NOT_RUN
    assert said in judged[0].reason


@pytest.mark.parametrize("size", [{"memory": 0}, {"file": 0}])
def test_what_nobody_measured_is_not_0_bytes(size: dict[str, int]) -> None:
    assert GOOD.memory is not None
    record = run("served")
    budget = MEMORY
    if "memory" in size:
        record = structs.replace(record, memory=structs.replace(GOOD.memory, peak_rss_bytes=0, peak_anonymous_bytes=0))
    else:
        record = structs.replace(record, model=structs.replace(GOOD.model, size_bytes=0))
        budget = Budget(metric="file_bytes", ceiling=1e12, model=NAME)

    (judged,) = evaluate([budget], [record])

    assert judged.answer == "could not run"
    assert "was not measured" in judged.reason


@pytest.mark.parametrize(
    ("earlier", "said"),
    [
        pytest.param({"outcome": "failed"}, "ended as failed", id="failed"),
        pytest.param({"machine": structs.replace(GOOD.machine, cpu_model="another")}, "machine is", id="other machine"),
        pytest.param({"model": structs.replace(GOOD.model, quant="Q2_K")}, "quant is", id="other quantisation"),
        pytest.param({"scenario": structs.replace(GOOD.scenario, thread_count=9)}, "thread_count is", id="setting"),
        pytest.param({"target": "ssh"}, "target is", id="other target"),
    ],
)
def test_a_baseline_of_another_kind_is_none(earlier: dict[str, object], said: str) -> None:
    (judged,) = evaluate([SPEED], [run("new")], baseline=[run("old", -1, **earlier)])

    assert judged.answer == "could not run"
    assert said in judged.reason


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"model": structs.replace(GOOD.model, name="slow")}, id="model"),
        pytest.param({"scenario": structs.replace(GOOD.scenario, thread_count=9)}, id="setting"),
    ],
)
def test_a_slow_kind_is_not_made_good_by_many_of_another(other: dict[str, object]) -> None:
    speed = metric_values(GOOD, SPEED.metric)[0]
    budget = Budget(metric="decode_tokens_per_s", floor=0.6 * speed)
    fast = [run(f"f{n}", n) for n in range(30)]
    slow = faster(run("s", 31, **other), 0.3)

    (judged,) = evaluate([budget], [*fast, slow])

    assert judged.answer == "fail"
    assert judged.evidence == ("s",)
    assert f"{slow.name}, of 2 kinds" in judged.reason
    assert evaluate([budget], fast)[0].answer == "pass"


def test_a_baseline_that_was_disturbed_decides_nothing() -> None:
    doubts = structs.replace(GOOD.samples[0].validity, doubts=("busy",))
    disturbed = tuple(structs.replace(sample, validity=doubts) for sample in GOOD.samples)

    (judged,) = evaluate([SPEED], [run("new")], baseline=[run("old", -1, samples=disturbed)])

    assert judged.answer == "inconclusive"


def faster(record: Record, factor: float) -> Record:
    return structs.replace(
        record, samples=tuple(structs.replace(s, duration_s=s.duration_s / factor) for s in record.samples)
    )


def test_runs_of_other_hours_are_one_repetition() -> None:
    day = 60 * 24
    old = [run(f"o{n}", n * day) for n in range(3)] + [run("o9", 5)]
    new = [run("n1", 10 * day), run("n2", 10 * day + 5)]

    assert [len(sitting) for sitting in sittings_of([*new, *old])] == [2, 1, 1, 2]
    unit, mine, theirs = comparable([(r, [100.0]) for r in new], [(r, [100.0]) for r in old])
    assert (unit, len(mine), len(theirs)) == ("sitting", 1, 3)


def test_an_hour_that_is_a_fifth_slower_is_no_slower_build() -> None:
    """One baseline of another hour: nobody knows how much hours differ, so only gate live can tell."""
    old = [run(f"o{n}", n) for n in range(5)]
    new = [faster(run(f"n{n}", 300 + n), 0.8) for n in range(5)]

    (judged,) = evaluate([SPEED], new, baseline=old)

    assert judged.answer == "inconclusive"
    assert "gate live" in judged.settles


def test_half_the_speed_is_a_slower_build_at_any_hour() -> None:
    old = [run(f"o{n}", n) for n in range(5)]
    new = [faster(run(f"n{n}", 300 + n), 0.5) for n in range(5)]

    (judged,) = evaluate([SPEED], new, baseline=old)

    assert judged.answer == "fail"


def test_every_file_of_a_folder_is_read_or_named(tmp_path: Path) -> None:
    save(run("one"), tmp_path / "one.json")
    save(run("two"), tmp_path / "TWO.JSON")
    save(run("three"), tmp_path / "below" / "three.json")
    (tmp_path / "lines.jsonl").write_bytes(
        b"".join(p.read_bytes().replace(b"\n", b"") + b"\n" for p in [tmp_path / "one.json"])
    )
    (tmp_path / "notes.txt").write_text("hello")

    with pytest.warns(UserWarning, match="not read: notes.txt"):
        assert {record.run_id for record in gather([str(tmp_path)])} == {"one", "two", "three"}
    save(faster(run("one"), 2.0), tmp_path / "other.json")
    with pytest.raises(RefusedError, match="two different runs are called one"), pytest.warns(UserWarning):
        gather([str(tmp_path)])


def test_only_runs_since_a_time_are_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path / "home"))
    save(run("old"), tmp_path / "results" / "old.json")
    (tmp_path / "b.toml").write_text('[[budget]]\nmetric = "peak_memory_bytes"\nceiling = 1e12\n')
    words = ["gate", "--budget", str(tmp_path / "b.toml"), str(tmp_path / "results")]

    def status(*more: str) -> int:
        return CliRunner().invoke(cli, [*words, *more], standalone_mode=False).return_value

    assert status() == 0
    assert status("--since", "2026-01-01T00:00:01Z") == Exit.COULD_NOT_RUN


def undecided(builds: int | None = None, days: int | None = None, build: str = "x"):
    budget = structs.replace(SPEED, undecided_builds=builds, undecided_days=days)
    return [judgement_of(budget, "inconclusive", reason="noise", evidence=(build,))]


def test_budgets_of_two_settings_are_undecided_each_by_itself(tmp_path: Path) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)

    def one(threads: int, build: str, answer: str = "inconclusive"):
        (judged,) = undecided(2, build=build)
        pin = {"thread_count": threads, "runtime_version": build}
        return judged.replace(answer=answer, budget=judged.budget.replace(pin=pin))

    def answers(kept: list, judged: list) -> list[str]:
        path = tmp_path / f"{len(kept)}{kept[-1].answer}.json"
        keep_answers(path, (), kept, now)
        return [each.answer for each in with_deadlines(judged, read_answers(path), now)]

    assert answers([one(1, "a"), one(2, "a2", "pass")], [one(1, "b")]) == ["fail"]
    assert answers([one(1, "a"), one(2, "a2")], [one(1, "a"), one(2, "a2")]) == ["inconclusive"] * 2


def test_a_budget_is_undecided_for_so_many_builds_and_no_longer(tmp_path: Path) -> None:
    file = tmp_path / "answers.json"
    now = datetime(2026, 1, 1, tzinfo=UTC)
    answers = []
    for build in ("a", "b", "b", "good", "c", "d", "e"):
        judged = undecided(builds=3, build=build)
        if build == "good":
            judged = [structs.replace(judged[0], answer="pass")]
        earlier = read_answers(file)
        keep_answers(file, earlier, judged, now)
        answers.append(with_deadlines(judged, earlier, now)[0].answer)
        now += timedelta(hours=1)

    # one build that is judged again is one build; only a pass or a fail begins anew
    assert answers == ["inconclusive"] * 3 + ["pass"] + ["inconclusive"] * 2 + ["fail"]


@pytest.mark.parametrize(("later", "answer"), [(13, "inconclusive"), (14, "fail")])
def test_a_budget_is_undecided_for_so_many_days_and_no_longer(tmp_path: Path, later: int, answer: str) -> None:
    file = tmp_path / "answers.json"
    now = datetime(2026, 1, 1, tzinfo=UTC)
    keep_answers(file, (), undecided(days=14, build="a"), now)

    judged = with_deadlines(undecided(days=14, build="b"), read_answers(file), now + timedelta(days=later))

    assert judged[0].answer == answer


def test_answers_of_strangers_are_read_as_such(tmp_path: Path) -> None:
    file = tmp_path / "answers.json"
    file.write_text('{"answers": [{"budget": "b", "at": "yesterday", "build": "", "answer": "pass"}]}')
    with pytest.raises(BadDataError, match=r"answers\[0\].at: found 'yesterday'"):
        read_answers(file)


def test_a_folder_that_cannot_be_written_does_not_change_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGE_HARNESS_HOME", "/proc/nowhere")
    save(run("old"), tmp_path / "results" / "old.json")
    (tmp_path / "b.toml").write_text('[[budget]]\nmetric = "peak_memory_bytes"\nceiling = 1e12\n')
    words = [
        "gate",
        "--budget",
        str(tmp_path / "b.toml"),
        str(tmp_path / "results"),
        "--answers",
        "/proc/nowhere/a.json",
    ]

    done = CliRunner().invoke(cli, words, standalone_mode=False)

    assert done.return_value == 0
    assert "PASS" in done.stdout
    assert "could not write" in done.stderr


PHONE = Budget(metric="decode_tokens_per_s", floor=1.0, model="llama-3.2-1b", device="iphone-16-pro", predicted=True)


def test_a_prediction_inside_a_record_is_not_believed() -> None:
    """It is made anew, as ``fit`` makes it: here a record says 1e6 tokens/s."""
    assert GOOD.prediction is not None
    fast = Interval(mid=1e6, low=1e6, high=1e6)
    lie = structs.replace(
        GOOD.prediction,
        device=PHONE.device,
        speed=structs.replace(GOOD.prediction.speed, decode_tokens_per_s=fast),
    )
    liar = run(
        "liar",
        prediction=lie,
        machine=structs.replace(GOOD.machine, device=PHONE.device),
        model=structs.replace(GOOD.model, name=PHONE.model),
    )
    (judged,) = evaluate([PHONE], [liar])

    told = answer(Question(model=PHONE.model, device=PHONE.device)).prediction.speed.decode_tokens_per_s
    assert (judged.value, judged.low, judged.high) == (told.mid, told.low, told.high)


def test_what_a_budget_pins_is_asked_for() -> None:
    pinned = structs.replace(PHONE, pin={"quant": "Q8_0", "kv_type": "Q8_0", "depth_tokens": 2048})
    (judged,) = evaluate([pinned], [])

    asked = Question(model=PHONE.model, device=PHONE.device, quant="Q8_0", kv_type="Q8_0", depth_tokens=2048)
    assert judged.value == answer(asked).prediction.speed.decode_tokens_per_s.mid


def test_a_model_that_does_not_run_passes_no_predicted_budget() -> None:
    large = structs.replace(PHONE, model="llama-3.1-8b", device="iphone 12", floor=0.01)
    (judged,) = evaluate([large], [])

    assert judged.answer == "fail"
    assert "does not run on" in judged.reason


def test_runs_that_differ_beyond_all_numbers_are_undecided() -> None:
    runs = [faster(run("a", 0), 1e-9), faster(run("b", 1), 1e6)]

    (judged,) = evaluate([Budget(metric="decode_tokens_per_s", floor=1.0, model=NAME)], runs)

    assert judged.answer == "inconclusive"


def test_turns_are_in_the_order_of_time_whatever_the_zone() -> None:
    """11:30 in Berlin is before 11:00 in London."""
    times = ["2026-01-01T11:00:00+01:00", "2026-01-01T10:10:00Z", "2026-01-01T11:20:00+01:00", "2026-01-01T10:30:00Z"]
    a, b, c, d = (structs.replace(GOOD, run_id=f"r{n}", created=made) for n, made in enumerate(times))

    assert alternate([a, c], [b, d])
    assert not alternate([a, b], [c, d])


@pytest.mark.parametrize("answer", ["fail", "could not run", "inconclusive", "pass"])
def test_the_first_screen_is_short_and_its_word_is_the_status(answer: str) -> None:
    """At most 14 lines and 110 words, the worst first, for any number of budgets."""
    words = {"fail": "FAIL", "could not run": "NO EVIDENCE", "inconclusive": "UNDECIDED", "pass": "PASS"}
    long = "a task waited for a CPU 100% of the time: stop other programs, or use fewer threads; " * 5
    judged = [
        judgement_of(
            structs.replace(SPEED, model=f"qwen2.5-coder-1.5b-{number}", pin={"quant": "Q4_K_M", "depth_tokens": 2048}),
            answer,
            reason=long,
            value=None if answer == "could not run" else 0.7 + number / 1000,
            low=0.6,
            high=0.9,
            margin_ratio=-0.3 + number / 1000,
            change=f"{30 - number / 10:.1f}% slower than the baseline",
            settles="measure the baseline beside it (gate live), or keep runs of more days as the baseline",
        )
        for number in range(58)
    ]
    notes = [
        "Baseline: 29 November, 14:12, the same runtime: suspect the machine first.",
        "4 runs made before --since left out.",
    ]

    screen = summary([*reversed(judged), judgement_of(SPEED, "pass", reason="")], notes)

    assert screen.startswith(f"{words[answer]}: 5")
    assert len(screen.splitlines()) <= 14
    assert len(screen.split()) <= 110
    if answer == "fail":
        assert [line.split()[:3] for line in screen.splitlines()[2:5]] == [["30", "%", "slower"]] * 3
        assert "and 55 more" in screen


def test_turns_alternate_and_end_when_the_answer_is_clear() -> None:
    order: list[str] = []

    def side(name: str, speeds: list[float]) -> Callable[[], Record]:
        def take() -> Record:
            order.append(name)
            turn = sum(each == name for each in order)
            sample = next(s for s in GOOD.samples if s.phase == "decode" and not s.warm_up)
            taken = structs.replace(
                sample, token_count=100, duration_s=100 / speeds[turn % len(speeds)], token_times_s=()
            )
            return run(f"{name}{turn}", len(order), samples=(taken,))

        return take

    half, same = [50.0, 51.0], [100.0, 101.0]
    judged, new, old = gate_in_turns([SPEED], side("n", half), side("o", same))

    # 1 % by two ways to read a turn: a stake of 200, which eight turns at best double to.
    assert (judged[0].answer, len(new), len(old)) == ("fail", len(new), len(new))
    assert 8 <= len(new) <= 10
    assert all(set(order[at : at + 2]) == {"n", "o"} for at in range(0, len(order), 2))
    order.clear()
    wild = [40.0, 160.0, 90.0]
    judged, new, _ = gate_in_turns([SPEED], side("n", wild), side("o", same), max_turns=10)
    assert (judged[0].answer, len(new)) == ("inconclusive", 10)


@pytest.mark.parametrize(("floor", "words"), [(50.0, "100.0% inside the limit"), (200.0, "50.0% outside the limit")])
def test_how_far_a_value_lies_from_a_fixed_limit(floor: float, words: str) -> None:
    budget = Budget(metric="decode_tokens_per_s", floor=floor)

    judged = judge(budget, Estimate(100.0, 99.0, 101.0, 6), Spread(0.1), (1, 0), errors=Errors.of(1, 1), evidence=())

    assert judged.change == words


def test_the_error_of_a_file_is_shared_by_budgets_and_looks() -> None:
    assert Errors.of(8, 4) == (pytest.approx(0.01 / 32), pytest.approx(0.05 / 4))
    # of a speed the upper end accuses, of a cost the lower one
    assert Errors(0.1, 0.2).ends(higher_is_better=True) == (0.2, 0.1)
    assert Errors(0.1, 0.2).ends(higher_is_better=False) == (0.1, 0.2)


def test_the_narrower_of_what_runs_tell_and_what_was_ever_seen_counts() -> None:
    # z(1 - .01) = 2.326348, z(1 - .005) = 2.575829, t(1 - .005, 10) = 3.169273
    assert Spread(0.1).half_width(0.01) == pytest.approx(0.2326348)
    assert Spread(0.1, 0.03, 10).half_width(0.01) == pytest.approx(3.169273 * 0.03)
    assert Spread(0.1, 0.09, 10).half_width(0.01) == pytest.approx(0.2575829)
    # beyond what was ever seen only the runs count: t(1 - .01, 10) = 2.763769
    assert Spread(0.1, 0.2, 10).half_width(0.01) == pytest.approx(2.763769 * 0.2)
    assert Spread(None, 0.2, 10).half_width(0.01) == pytest.approx(2.763769 * 0.2)
    assert Spread(None).half_width(0.01) is None


def test_a_runs_own_noise_is_added_to_what_is_assumed() -> None:
    # two samples: stdev of ln is |ln(110 / 90)| / sqrt(2), of the median 1.2533 / sqrt(2) of that
    own = 1.2533 * abs(log(110 / 90)) / 2
    spread = spread_of([[[90.0, 110.0]]], 0.1)

    assert (spread.assumed, spread.told, spread.degrees) == (pytest.approx((0.01 + own**2) ** 0.5), None, 0)
    assert spread_of([[[100.0], [100.0]], [[50.0]]], 0.1).degrees == 1


def test_a_limit_as_large_as_the_memory_is_none() -> None:
    small = structs.replace(GOOD, machine=structs.replace(GOOD.machine, memory_limit_bytes=GOOD.machine.ram_bytes - 1))

    assert GOOD.machine.memory_limit_bytes == GOOD.machine.ram_bytes
    assert pins_of(GOOD)["memory_limit_bytes"] == 0
    assert pins_of(small)["memory_limit_bytes"] == GOOD.machine.ram_bytes - 1
    assert pins_of(structs.replace(small, extra={"memory_limit_bytes": 7}))["memory_limit_bytes"] == 7


def test_one_run_of_each_side_is_no_turn() -> None:
    a, b = run("a", 0), run("b", 1)

    assert not alternate([a], [b])
    assert not alternate([a, run("c", 2)], [b])
    assert alternate([a, run("c", 2)], [b, run("d", 3)])


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ((3, 3), "no number of runs is enough beside 3 runs of the baseline"),
        ((3, 0), "no number of runs is sure to settle it"),
    ],
)
def test_what_no_number_of_runs_settles(counts: tuple[int, int], words: str) -> None:
    budget = (
        Budget(metric="decode_tokens_per_s", baseline_ratio=1.0)
        if counts[1]
        else Budget(metric="decode_tokens_per_s", floor=1.0)
    )
    judged = judge(
        budget, Estimate(1.0001, 0.9, 1.1, 6), Spread(0.1, 0.05, 4), counts, errors=Errors.of(1, 1), evidence=()
    )  # fmt: skip

    assert judged.answer == "inconclusive"
    assert words in judged.settles
