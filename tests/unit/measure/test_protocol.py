"""The protocol on a clock of its own: every figure can be added up by hand."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.core.errors import EngineError
from harness.core.record import Sample, Validity
from harness.core.scenario import Scenario
from harness.measure.protocol import GenerateJob, Protocoller
from harness.measure.validity import Watch
from tests.fake import FakeRuntime


class Quiet:
    """Probe and meter that notice what they are told to."""

    def __init__(self, doubts: Iterable[str] = ()) -> None:
        self.doubts = iter(doubts)

    def start(self) -> None:
        pass

    def finish(self) -> Validity:
        doubt = next(self.doubts, "")
        return Validity(doubts=(doubt,) if doubt else ())

    def finish_joules(self) -> float | None:
        return 3.0


def run_job(
    folder: Path, scenario: Scenario, *, model: str = "{}", doubts: Iterable[str] = (), **fields: Any
) -> tuple[list[Sample], list[float]]:
    path = folder / "m.json"
    path.write_text(model)
    events: list[tuple[str, Any]] = []
    pauses: list[float] = []
    probe = Quiet(doubts)
    job = GenerateJob(path=str(path), scenario=scenario, runtime="fake", **fields)
    protocol = Protocoller(job, FakeRuntime(), lambda name, data=None: events.append((name, data)))
    protocol.watch = lambda meter=None, **_: Watch(probe, meter, protocol.now_s)
    protocol._meter = Quiet()
    protocol.sleep = pauses.append
    protocol.run()
    return [data for name, data in events if name == "sample"], pauses


COSTS = '{"load_s": 2.0, "prefill_s_per_token": 0.25, "decode_s_per_token": 0.5}'


def test_times_are_those_of_the_clock(tmp_path: Path) -> None:
    scenario = Scenario(context_tokens=64, prompt_tokens=8, new_tokens=4)

    samples, _ = run_job(tmp_path, scenario, model=COSTS, repetitions=2)

    assert [(s.label, s.duration_s, s.token_count, s.warm_up) for s in samples if s.phase != "first_token"] == [
        ("load @ cold", 2.0, 0, False),
        ("load", 2.0, 0, False),
        ("pp8", 2.0, 8, True),  # 8 tokens x 0.25 s
        ("pp8", 2.0, 8, False),
        ("pp8", 2.0, 8, False),
        ("tg4", 0.5, 1, True),
        ("tg4", 2.0, 4, False),  # 4 tokens x 0.5 s
        ("tg4", 2.0, 4, False),
    ]
    # Cold: 2 s to load and 8 tokens x 0.25 s; warm: the prompt alone.
    firsts = [(s.label, s.duration_s) for s in samples if s.phase == "first_token" and not s.warm_up]
    assert firsts == [("ttft8 @ cold", 4.0), ("ttft8", 2.0), ("ttft8", 2.0)]


def test_every_token_has_its_time(tmp_path: Path) -> None:
    model = '{"decode_s_per_token": 0.5, "slow_every_count": 4}'

    samples, _ = run_job(tmp_path, Scenario(prompt_tokens=0, new_tokens=8), model=model, repetitions=1, cold_loads=0)

    # The warm-up computed token 0; every fourth token (3, 7, ...) is slow, so the third and the seventh of these.
    assert samples[-1].token_times_s == (0.5, 0.5, 1.0, 0.5, 0.5, 0.5, 1.0, 0.5)
    assert samples[-1].energy_joules == 3.0


def test_depth_is_filled_outside_the_clock(tmp_path: Path) -> None:
    scenario = Scenario(context_tokens=64, prompt_tokens=8, new_tokens=4, depth_tokens=16)

    samples, _ = run_job(tmp_path, scenario, model=COSTS, repetitions=1, cold_loads=0)

    assert [(s.label, s.duration_s) for s in samples if not s.warm_up and s.phase in {"prefill", "decode"}] == [
        ("pp8 @ d16", 2.0),
        ("tg4 @ d16", 2.0),
    ]


def test_a_disturbed_sample_is_marked_and_taken_again(tmp_path: Path) -> None:
    # Probes in order: load, warm-up, then the samples (8 tokens of 1/1024 s each: they cost no patience to speak of).
    doubts = ["", "", "busy", "", "busy", "busy", ""]

    samples, pauses = run_job(
        tmp_path, Scenario(prompt_tokens=8, new_tokens=0), doubts=doubts, repetitions=2, cold_loads=0
    )

    prefill = [s for s in samples if s.phase == "prefill" and not s.warm_up]
    assert [s.validity.doubts for s in prefill] == [("busy",), (), ("busy",), ("busy",), ()]
    assert pauses == [0.25, 0.5, 1.0]


def test_attempts_end(tmp_path: Path) -> None:
    scenario = Scenario(prompt_tokens=8, new_tokens=0)

    samples, pauses = run_job(tmp_path, scenario, doubts=["busy"] * 99, repetitions=2, cold_loads=0, patience_s=60.0)

    assert len([s for s in samples if s.phase == "prefill" and not s.warm_up]) == 6  # three for each that is wanted
    assert pauses == [0.25, 0.5, 1.0, 2.0, 2.0, 2.0]


def test_slow_disturbed_samples_spend_the_patience(tmp_path: Path) -> None:
    scenario = Scenario(context_tokens=64, prompt_tokens=8, new_tokens=4)

    # Each prefill takes 8 x 0.25 = 2 s: warm-up and one sample are more than 3 s of patience. Decode is warmed up and
    # tried once all the same: what was measured is always shown.
    samples, _ = run_job(
        tmp_path, scenario, model=COSTS, doubts=["busy"] * 99, repetitions=3, cold_loads=0, patience_s=3.0
    )

    assert [s.label for s in samples if s.phase in {"prefill", "decode"}] == ["pp8", "pp8", "tg4", "tg4"]


def test_nan_is_found_and_refusal_told_apart(tmp_path: Path) -> None:
    scenario = Scenario(prompt_tokens=8, new_tokens=0)
    with pytest.raises(EngineError, match="1 of 256 logits") as caught:
        run_job(tmp_path, scenario, model='{"fault": "nan"}')
    assert caught.value.outcome == "failed"
    with pytest.raises(EngineError) as caught:
        run_job(tmp_path, scenario, model='{"fault": "refuse"}')
    assert caught.value.outcome == "refused"


def test_samples_survive_the_way_to_the_parent(tmp_path: Path) -> None:
    samples, _ = run_job(tmp_path, Scenario(prompt_tokens=8, new_tokens=4), repetitions=1)

    assert [msgspec.json.decode(msgspec.json.encode(s), type=Sample) for s in samples] == samples


def test_sequences_go_through_together(tmp_path: Path) -> None:
    scenario = Scenario(context_tokens=64, prompt_tokens=4, new_tokens=3, depth_tokens=2, batch_count=2)

    samples, _ = run_job(tmp_path, scenario, model=COSTS, repetitions=2, cold_loads=0)

    assert [(s.label, s.duration_s, s.token_count) for s in samples if not s.warm_up and s.phase != "load"] == [
        ("pp4 @ d2 b2", 2.0, 8),  # two prompts of 4 tokens x 0.25 s
        ("ttft4 @ d2 b2", 2.0, 8),
        ("pp4 @ d2 b2", 2.0, 8),
        ("ttft4 @ d2 b2", 2.0, 8),
        ("tg3 @ d2 b2", 1.5, 6),  # three passes of two tokens, each 2 x 0.25 s: no token went alone
        ("tg3 @ d2 b2", 1.5, 6),
    ]
    assert [s.token_times_s for s in samples if s.phase == "decode" and not s.warm_up] == [(0.5, 0.5, 0.5)] * 2
