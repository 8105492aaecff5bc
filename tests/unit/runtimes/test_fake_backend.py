"""The fake runtime keeps its rule and its clock."""

from pathlib import Path

import pytest

from harness.core.errors import BadDataError, EngineError
from harness.core.ports import Session
from harness.core.scenario import Scenario
from tests.fake import FakeRuntime, read_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.json"
    path.write_text('{"load_s": 1.0, "prefill_s_per_token": 0.25, "decode_s_per_token": 0.5}')
    return path


def test_time_is_the_sum_of_its_costs(model: Path) -> None:
    runtime = FakeRuntime()
    session = runtime.open(model, Scenario())
    assert isinstance(session, Session)

    session.decode([1, 2, 3, 4], position=0)
    session.decode([5], position=4)

    # 1 s to load, 4 tokens of a batch at 0.25 s, one single token at 0.5 s
    assert runtime.clock.now_s() == 2.5


def test_next_token_follows_the_rule(model: Path) -> None:
    session = FakeRuntime().open(model, Scenario())
    session.decode([10, 20], position=0, logits="all")

    # 31 * 10 + 7 * 0 + 11 = 321 = 65 mod 256; 31 * 20 + 7 * 1 + 11 = 638 = 126 mod 256
    assert [session.greedy(0), session.greedy(1), session.greedy()] == [65, 126, 126]


def test_positions_must_follow_one_another(model: Path) -> None:
    session = FakeRuntime().open(model, Scenario())
    session.decode([1, 2], position=0)
    with pytest.raises(EngineError, match="has 2 tokens"):
        session.decode([3], position=5)
    session.truncate(1)
    session.decode([3], position=1)
    session.fork(0, 1)
    session.decode([4], position=2, sequence=1)


def test_full_context_is_refused(model: Path) -> None:
    session = FakeRuntime().open(model, Scenario(context_tokens=4))
    with pytest.raises(EngineError, match="KV cache"):
        session.decode([0] * 5, position=0)


@pytest.mark.parametrize("text", ['{"load_s": "soon"}', '{"speed": 1}', "{"])
def test_a_broken_model_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "m.json"
    path.write_text(text)
    with pytest.raises(BadDataError, match=r"m\.json"):
        read_model(path)
