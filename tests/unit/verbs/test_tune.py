"""The race: who leaves, who wins, and what is said of the winner, on a clock and a machine of our own."""

import math
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from harness.answer.resolve import resolve_model
from harness.cli.tune import headline
from harness.core import plugins
from harness.core.errors import RefusedError
from harness.core.placement import placement_of
from harness.core.record import SCHEMA_VERSION, UNKNOWN_MACHINE, Record, Sample
from harness.core.scenario import Scenario
from harness.core.stats.intervals import Estimate
from harness.verbs.tune import (
    GOALS,
    LEAD_RATIO,
    NOT_RUN,
    Race,
    Runner,
    Setting,
    Tuned,
    candidates,
    commands,
    hopeless,
    neighbours,
    request_s,
    scenario_of,
    usable,
    worse_nats,
)

pytestmark = pytest.mark.alone

SHAPE = resolve_model("llama-3.2-1b", None).weights.shape
SETTINGS = [Setting(runtime="r", thread_count=count) for count in range(1, 9)]


class Machine:
    """Runs a setting in so many seconds, with noise and bursts of a neighbour, and keeps the clock."""

    def __init__(self, seconds: Callable[[Setting], float], *, noise: float = 0.0, bursts: float = 0.0, seed: int = 0):
        self.seconds, self.noise, self.bursts = seconds, noise, bursts
        self.random = random.Random(seed)
        self.clock_s = 0.0
        self.runs: list[Setting] = []

    def now_s(self) -> float:
        return self.clock_s

    def take(self, setting: Setting) -> float:
        busy = 1.4 if self.random.random() < self.bursts else 1.0
        taken = self.seconds(setting) * busy * (1 + abs(self.random.gauss(0, self.noise)))
        self.clock_s += taken
        self.runs.append(setting)
        return taken


def test_the_fastest_wins_and_the_slow_leave_early() -> None:
    # 1 s with three threads, a tenth more for each step away: 1.2 x at five, 1.6 x would leave in the first round
    machine = Machine(lambda s: 1.0 + 0.2 * abs(s.thread_count - 3), noise=0.01)
    race = Race(machine.take, now_s=machine.now_s)

    winner = race.run(SETTINGS, until_s=200.0)

    assert winner.thread_count == 3
    assert "in the first round" in race.left[SETTINGS[7]]
    assert machine.runs.count(SETTINGS[7]) == 1
    assert machine.clock_s < 100, "it ends when nobody can win any more"


def test_what_is_predicted_to_take_half_as_long_again_never_runs() -> None:
    """Beside the first one of its own runtime: nothing is predicted of one runtime beside another."""
    a2, a1, b2, b1 = (Setting(runtime=runtime, thread_count=count) for runtime in "ab" for count in (2, 1))
    assert hopeless({a2: 5.0, a1: 10.0, b2: 9.0, b1: 13.0}) == {a1: "predicted to take 2.00 times as long as a -t 2"}


@pytest.mark.parametrize("seconds", [(1.0, math.inf), (math.inf, 1.0), (math.inf, math.inf)])
def test_what_nothing_is_predicted_of_runs(seconds: tuple[float, float]) -> None:
    assert hopeless(dict(zip(SETTINGS[:2], seconds, strict=True))) == {}


def test_a_setting_that_is_refused_tells_nothing_of_the_others() -> None:
    def take(setting: Setting) -> float:
        if setting == SETTINGS[0]:
            raise RefusedError("worse answers")
        return 1.0

    race = Race(take, now_s=lambda: 0.0)
    race.run(SETTINGS[:3], until_s=1e9)
    assert race.left[SETTINGS[0]] == "worse answers" and set(race.turns) == set(SETTINGS[1:3])


@pytest.mark.parametrize(
    ("own", "usual", "worse"),
    [
        # 0.1 each way around 0.02 more: a standard deviation of 0.1 * sqrt(100 / 99), of the mean a tenth of that
        ([2.12, 1.92] * 50, [2.0] * 100, 0.02 - 2 * 0.01 * (100 / 99) ** 0.5),
        ([3.8, 3.6] * 50, [2.0] * 100, 1.7 - 2 * 0.01 * (100 / 99) ** 0.5),
        ([], [2.0] * 100, float("-inf")),  # it tells none
        ([2.0], [1.0], float("-inf")),
    ],
)
def test_answers_are_worse_by_more_than_chance(own: list[float], usual: list[float], worse: float) -> None:
    assert worse_nats(own, usual) == pytest.approx(worse)


def test_the_races_leave_time_for_three_turns_against_the_defaults() -> None:
    machine = Machine(lambda s: 1.0 if s == SETTINGS[1] else 1.01)
    race = Race(machine.take, now_s=machine.now_s)
    assert race.final_s() == 0.0
    race.run(SETTINGS[:2], until_s=5.0)
    # two settings, three turns each, of a second
    assert race.final_s() == pytest.approx(6.0, rel=0.02)


def test_the_gain_is_measured_in_turns_of_its_own() -> None:
    machine = Machine(lambda s: 2.0 if s == SETTINGS[0] else 1.0, noise=0.02)
    race = Race(machine.take, now_s=machine.now_s)
    winner = race.run(SETTINGS[:2], until_s=60.0)
    before = len(machine.runs)

    gain = race.against(winner, SETTINGS[0], until_s=200.0)

    assert len(machine.runs) - before == 16
    assert gain.low is not None and gain.high is not None
    assert gain.low < 2.0 < gain.high
    assert gain.high - gain.low < 0.2


@pytest.mark.parametrize("bursts", [0.0, 0.3])
def test_equal_settings_have_no_winner(bursts: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty races of eight equal settings, beside a neighbour that comes and goes: none is told to be faster."""
    monkeypatch.setattr("harness.core.stats.intervals.RESAMPLES", 1000)
    false = 0
    for seed in range(20):
        machine = Machine(lambda _: 1.0, noise=0.03, bursts=bursts, seed=seed)
        race = Race(machine.take, now_s=machine.now_s)
        winner = race.run(SETTINGS, until_s=80.0)
        gain = race.against(winner, SETTINGS[0], until_s=200.0)
        false += gain.low is not None and gain.low > LEAD_RATIO
    assert false == 0


def test_a_setting_that_cannot_run_leaves_with_its_reason() -> None:
    def take(setting: Setting) -> float:
        if setting.thread_count > 1:
            raise RefusedError("out of memory: killed")
        return 1.0

    race = Race(take, now_s=lambda: 0.0)

    assert race.run(SETTINGS[:3], until_s=1e9) == SETTINGS[0]
    assert race.left[SETTINGS[2]] == "out of memory: killed"
    with pytest.raises(RefusedError, match="no setting ran: out of memory"):
        Race(take, now_s=lambda: 0.0).run(SETTINGS[1:3], until_s=1e9)


def test_what_has_not_run_when_the_time_is_up_never_does() -> None:
    machine = Machine(lambda _: 1.0)
    race = Race(machine.take, now_s=machine.now_s)

    assert race.run(SETTINGS, until_s=2.5) in SETTINGS[:3]

    assert len(machine.runs) == 3
    assert race.left[SETTINGS[3]] == "the time was up before it ran"


def test_it_ends_when_its_time_is_up() -> None:
    machine = Machine(lambda _: 1.0, noise=0.05)
    Race(machine.take, now_s=machine.now_s).run(SETTINGS, until_s=50.0)
    assert machine.clock_s < 70


@pytest.mark.parametrize(
    ("goal", "tokens", "users"),
    [
        ("chat", (512, 128, 0), 1),
        ("prompt", (2048, 16, 0), 1),
        ("agent", (256, 64, 2048), 1),
        ("users=8", (512, 128, 0), 8),
    ],
)
def test_goals(goal: str, tokens: tuple[int, int, int], users: int) -> None:
    asked = scenario_of(goal)
    assert (asked.prompt_tokens, asked.new_tokens, asked.depth_tokens) == tokens
    assert asked.batch_count == users
    assert asked.context_tokens >= users * (tokens[0] + tokens[1]) + tokens[2]


@pytest.mark.parametrize("goal", ["", "speed", "users", "users=0", "users=x", "users=9999"])
def test_another_word_is_no_goal(goal: str) -> None:
    with pytest.raises(RefusedError, match="--for: found"):
        scenario_of(goal)


def test_a_cache_of_fewer_bits_is_raced_only_where_answers_may_change() -> None:
    asked = scenario_of("chat")
    first = next(candidates(["llamacpp"], SETTINGS[1], 4))
    kept, changed = ({s.kv_type for s in neighbours(first, asked, SHAPE, kept=kept)} for kept in (True, False))
    assert (kept, changed) == ({"F16"}, {"F16", "Q8_0"})
    # each differs in one thing
    for setting in neighbours(first, asked, SHAPE, kept=False):
        apart = [f for f in setting.__struct_fields__ if getattr(setting, f) != getattr(first, f)]
        assert len(apart) <= 1


def test_the_first_race_begins_with_the_defaults() -> None:
    listed = list(candidates(["a", "b"], SETTINGS[3], 8))
    assert [s.thread_count for s in listed if s.runtime == "a" and s.repack] == [4, 2, 3, 8]
    assert listed[0] == replace(SETTINGS[3], runtime="a")
    assert len(set(listed)) == len(listed) == 16


def test_where_only_packed_weights_are_fast_no_others_are_raced() -> None:
    """On an Intel machine with AMX `-ub 64 --no-repack` took 98.9 s a request for 8.3."""
    listed = list(candidates(["llamacpp"], SETTINGS[3], 8, ["avx2", "avx512", "amx"]))
    assert {setting.repack for setting in listed} == {True}


@pytest.mark.parametrize(
    ("model", "placement", "expected"),
    [  # 16 blocks, and the output as a layer of its own
        ("llama-3.2-1b", "-ngl 10", ["-ngl 12", "-ngl 11", "-ngl 9", "-ngl 8"]),
        ("llama-3.2-1b", "", ["-ngl 16", "-ngl 15"]),
        ("olmoe-1b-7b", "--n-cpu-moe 3", ["--n-cpu-moe 1", "--n-cpu-moe 2", "--n-cpu-moe 4", "--n-cpu-moe 5"]),
    ],
)
def test_placements_are_looked_at_two_steps_each_way(model: str, placement: str, expected: list[str]) -> None:
    shape = resolve_model(model, None).weights.shape
    first = replace(SETTINGS[1], api="vulkan", placement=placement_of(placement))
    listed = list(neighbours(first, scenario_of("chat"), shape, kept=True))
    assert [s.placement for s in listed if s.placement != first.placement] == [placement_of(e) for e in expected]
    assert listed.count(first) == 1, "the winner has one turn a round"
    on_cpu = neighbours(replace(first, api="cpu"), scenario_of("chat"), shape, kept=True)
    assert {s.placement for s in on_cpu} == {first.placement}


def sample(phase: str, tokens: int, seconds: float, *, warm_up: bool = False) -> Sample:
    return Sample(phase=phase, label=phase, token_count=tokens, duration_s=seconds, started_unix_s=0, warm_up=warm_up)  # type: ignore[arg-type]


def record(**fields: object) -> Record:
    given = {
        "schema_version": SCHEMA_VERSION, "run_id": "r", "created": "2026-01-01T00:00:00Z", "harness_version": "0",
        "command": (), "workload": "generate", "machine": UNKNOWN_MACHINE, "outcome": "ok",
        "scenario": Scenario(prompt_tokens=100, new_tokens=10),
        "samples": (sample("prefill", 100, 9.0, warm_up=True), sample("prefill", 100, 2.0), sample("prefill", 100, 3.0),
                    sample("decode", 20, 1.0)),
    }  # fmt: skip
    return Record(**(given | fields))  # type: ignore[arg-type]


def test_seconds_of_a_request_by_hand() -> None:
    # the better of two prompts takes 2 s; ten tokens at 20 tokens/s half a second
    assert request_s(record(), record().scenario) == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"outcome": "crashed", "detail": "SIGSEGV"}, "crashed: SIGSEGV"),
        ({"samples": ()}, "no sample of prefill"),
    ],
)
def test_a_run_without_an_answer_has_no_seconds(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        request_s(record(**fields), record().scenario)


def test_an_interrupted_turn_ends_the_race() -> None:
    """It is nobody's fault: the setting that ran is not thrown out for it."""
    race = Race(lambda _: request_s(record(outcome="interrupted"), record().scenario), now_s=lambda: 0.0)
    with pytest.raises(KeyboardInterrupt):
        race.run(SETTINGS[:2], until_s=1e9)


def test_one_package_is_raced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With xllamacpp alone, ``llamacpp`` is driven through it."""

    def loaded(_group: str, name: str, _what: str) -> SimpleNamespace:
        package = {"llamacpp": "xllamacpp 2026.9.11063", "xllamacpp": "xllamacpp 2026.9.11063"}.get(name, name)
        missing = None if name in {"llamacpp", "xllamacpp", "ik"} else "not installed"
        return SimpleNamespace(missing=lambda: missing, formats=("gguf",), package=lambda: package)

    monkeypatch.setattr(plugins, "load", loaded)
    assert usable([]) == ["llamacpp", "ik"]
    assert usable(["xllamacpp"]) == ["xllamacpp"]


def test_commands_hold_the_winner() -> None:
    model = Path("m.gguf")
    setting = Setting(runtime="llamacpp", thread_count=3, ubatch_tokens=128, kv_type="Q8_0", repack=False)

    lines = commands(setting, model, scenario_of("users=4"))

    options = "-ctk q8_0 -ctv q8_0{} -t 3 -ub 128 --no-repack"
    assert lines["llama-server"] == "llama-server -m m.gguf -c 4096 -ngl 0 -dev none " + options.format(" -np 4")
    assert lines["Ollama Modelfile"].splitlines()[1:] == [
        "PARAMETER num_thread 3", "PARAMETER num_ctx 4096", "PARAMETER num_batch 128", "PARAMETER num_gpu 0",
        "# A Modelfile cannot set: -ctk q8_0 -ctv q8_0 --no-repack",
    ]  # fmt: skip
    off = commands(replace(setting, flash_attention=False, kv_type="F16"), model, scenario_of("chat"))
    assert "-fa off" in off["llama-server"]
    assert "-ctk" not in off["llama-server"]
    on_card = commands(
        replace(setting, api="cuda", placement=placement_of("-ngl 20 -nkvo")), model, scenario_of("chat")
    )
    assert "-dev" not in on_card["llama-server"]
    assert "PARAMETER num_gpu 20\n# A Modelfile cannot set: " in on_card["Ollama Modelfile"]
    assert on_card["Ollama Modelfile"].endswith("--no-repack -nkvo")


def test_each_flag_of_a_placement_is_set_or_named() -> None:
    placed = placement_of("-ngl 20 --n-cpu-moe 7 -ts 3,1 -sm row -mg 1")
    setting = Setting(runtime="llamacpp", thread_count=2, api="cuda", flash_attention=False, placement=placed)
    lines = commands(setting, Path("m.gguf"), scenario_of("chat"))
    assert lines["Ollama Modelfile"].splitlines()[-1] == (
        "# A Modelfile cannot set: -fa off --n-cpu-moe 7 -ts 3,1 -sm row -mg 1"
    )
    plain = commands(Setting(runtime="llamacpp", thread_count=2), Path("m.gguf"), scenario_of("chat"))
    assert not any("cannot set" in text for text in plain.values())


def test_another_engine_is_no_command_of_llama_cpp() -> None:
    lines = commands(Setting(runtime="ik", thread_count=2), Path("m.gguf"), scenario_of("chat"))
    assert lines == {
        "ik_llama.cpp's llama-server": "llama-server -m m.gguf -c 4096 -ngl 0 -t 2 -rtr",
    }
    mapped = commands(Setting(runtime="ik", thread_count=2, repack=False), Path("m.gguf"), scenario_of("chat"))
    assert "repack" not in mapped["ik_llama.cpp's llama-server"]
    assert "-rtr" not in mapped["ik_llama.cpp's llama-server"]


def test_a_runtime_that_cannot_race_is_refused_by_name() -> None:
    with pytest.raises(RefusedError, match="server: it reads no GGUF file in process"):
        usable(["server"])


def test_goals_are_whole() -> None:
    assert set(GOALS) == {"chat", "prompt", "agent"}


def tuned(gain: Estimate, winner: Setting) -> Tuned:
    defaults = Setting(runtime="llamacpp", thread_count=4)
    return Tuned(
        model="m Q4_0", goal="chat", winner=winner, defaults=defaults, gain=gain, runners=(), rounds=1,
        seconds=1.0,
    )  # fmt: skip


FAST = Setting(runtime="ik", thread_count=2, ubatch_tokens=128, repack=False)


def test_a_race_that_was_cut_short_is_no_answer() -> None:
    left = Runner(setting=FAST, left=NOT_RUN)
    cut = replace(tuned(Estimate(1.0, 1.0, 1.0, 0), Setting(runtime="llamacpp", thread_count=4)), runners=(left,))
    assert headline(cut).endswith(": The time was up before 1 of 1 settings ran: raise --within.")


def test_a_gain_is_told_of_a_race_that_was_cut_short() -> None:
    """It has turns of its own."""
    cut = replace(tuned(Estimate(1.74, 1.66, 1.81, 6), FAST), runners=(Runner(setting=FAST, left=NOT_RUN),))
    assert "1.74 times faster than the defaults (1.66 to 1.81)" in headline(cut)
    assert headline(cut).endswith("The time was up before 1 of 1 settings ran: raise --within.")


@pytest.mark.parametrize(
    ("gain", "winner", "said"),
    [
        (Estimate(1.74, 1.66, 1.81, 6), FAST, "1.74 times faster than the defaults (1.66 to 1.81): ik -t 2 -ub 128"),
        (
            Estimate(1.02, 0.98, 1.05, 6),
            FAST,
            "no difference from the defaults beyond noise: 1.02 times (0.98 to 1.05)",
        ),
        (Estimate(float("inf"), None, None, 0), FAST, "won; llama.cpp's defaults do not run here."),
        (Estimate(1.0, 1.0, 1.0, 0), Setting(runtime="llamacpp", thread_count=4), "the defaults of llama.cpp are the"),
    ],
)
def test_the_first_line(gain: Estimate, winner: Setting, said: str) -> None:
    assert said in headline(tuned(gain, winner))


def test_what_was_not_shown_to_be_faster_is_no_winner() -> None:
    defaults = Setting(runtime="llamacpp", thread_count=4)
    said = headline(replace(tuned(Estimate(1.0, 1.0, 1.0, 0), defaults), unproven=FAST))
    assert "ik -t 2 -ub 128 --no-repack was ahead, and is not shown to be faster than the defaults" in said


def test_one_turn_takes_no_winners_place() -> None:
    """A neighbour that is ahead in its only turn does not beat a setting that won its race."""
    machine = Machine(lambda s: {1: 8.0, 2: 8.3, 9: 7.9}[s.thread_count])
    race = Race(machine.take, now_s=machine.now_s)
    holder = race.run(SETTINGS[:2], until_s=60.0)
    neighbour = holder.replace(thread_count=9)

    winner = race.run([holder, neighbour], until_s=machine.clock_s + 10.0)

    assert winner == holder == SETTINGS[0]
    assert race.left[neighbour] == "ahead in 1 of the 3 turns that it takes to win"
    # 8.3 s against 8.0 in one race, 7.9 against 8.0 in the other: each beside the one that won
    assert race.beside(winner) == pytest.approx({SETTINGS[0]: 1.0, SETTINGS[1]: 8.3 / 8.0, neighbour: 7.9 / 8.0})


def test_who_beats_the_holder_in_three_turns_takes_its_place_and_all_are_told_beside_it() -> None:
    machine = Machine(lambda s: {1: 8.0, 2: 9.0, 9: 4.0}[s.thread_count])
    race = Race(machine.take, now_s=machine.now_s)
    holder = race.run(SETTINGS[:2], until_s=60.0)
    machine.seconds = lambda s: {1: 16.0, 9: 8.0}[s.thread_count]  # the machine has become half as fast
    neighbour = holder.replace(thread_count=9)

    winner = race.run([holder, neighbour], until_s=1e6)

    assert winner == neighbour
    # 16 s against 8 s in the second race; in the first one nine against eight
    assert race.beside(winner) == pytest.approx({neighbour: 1.0, SETTINGS[0]: 2.0, SETTINGS[1]: 2.0 * 9 / 8})
