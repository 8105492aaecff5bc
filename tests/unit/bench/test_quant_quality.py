"""What a quantisation is said to do: nothing to itself, what was put in otherwise; and the child on the real engine."""

from pathlib import Path

import numpy as np
import pytest

from bench.answers_job import guessing
from bench.confidence import INVERSE_TEMPERATURES, TokenScores
from bench.quant_quality_run import Answers, Asked, Choices, ask, compare_answers, quant_quality, scaled
from bench.reasoning_tasks import Task
from harness.errors import RefusedError


def tokens(seed: int, *, shift: float = 0.0, sharp: float = 1.0) -> TokenScores:
    """Rows of a vocabulary of 20: logits that are ``sharp`` times as sure as the truth is drawn by."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((1200, 20))
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    came = np.array([rng.choice(20, p=row) for row in chances])
    gaps = sharp * (logits - logits.max(1, keepdims=True))
    normaliser = np.log(np.exp(INVERSE_TEMPERATURES[None, :, None] * gaps[:, None, :]).sum(2))
    gap = gaps[np.arange(1200), came]
    nll = normaliser[:, 10] - gap + shift
    return TokenScores(np.exp(-normaliser[:, 10]), logits.argmax(1) == came, nll, gap, normaliser)


def choices(right: int, count: int, chance: float = 0.25) -> Choices:
    is_right = np.arange(count) < right
    return Choices(np.full(count, 0.6), is_right, np.where(is_right, 0.5, 1.5), np.full(count, chance))


def test_a_model_beside_itself_shows_no_change():
    answers = Answers(tokens(1), {"counting": choices(60, 100), "spatial": choices(26, 100)})
    next_token, chosen, tasks = compare_answers(answers, answers)
    for found in (next_token, chosen):
        assert found is not None
        for change in (found.nll_change, found.ece_change, found.smooth_ece_change, found.accuracy_change):
            assert (change.value, change.low, change.high) == (0, 0, 0)
        assert found.lost_count == found.gained_count == 0
    # Wilson at 95 %: 60 of 100 from 0.50, 26 of 100 from 0.18: only the first leaves chance below it
    assert [(t.kind, t.has_signal) for t in tasks] == [("counting", True), ("spatial", False)]


def test_what_was_put_in_comes_out():
    before = Answers(tokens(1), {"counting": choices(60, 100)})
    after = Answers(tokens(1, shift=0.1), {"counting": choices(50, 100)})
    next_token, chosen, tasks = compare_answers(before, after)
    assert next_token.nll_change.value == pytest.approx(0.1)
    assert next_token.nll_change.low == pytest.approx(0.1)  # the same for every row
    assert next_token.ece_change.value == 0
    assert chosen is not None
    assert (tasks[0].lost_count, tasks[0].gained_count) == (10, 0)
    assert tasks[0].accuracy_change.value == pytest.approx(-0.1)
    assert tasks[0].accuracy_change.high < 0


@pytest.mark.parametrize("sharp", [0.8, 1.0, 1.25])
def test_the_temperature_undoes_sharpening(sharp):
    found = scaled(tokens(2, sharp=sharp))
    # rows drawn by softmax(z), told softmax(sharp z): the best temperature is sharp; 600 rows leave some 5 %
    assert found.temperature == pytest.approx(sharp, rel=0.1)
    if sharp != 1.0:
        assert found.nll_scaled < found.nll
        assert found.ece_scaled < found.ece


def test_other_rows_are_refused():
    with pytest.raises(RefusedError):
        one = tokens(1)
        compare_answers(Answers(one, {}), Answers(TokenScores._make(c[:-1] for c in one), {}))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("llama_cpp", reason="the llama extra is not installed")
    from bench.tiny_gguf import synthesize_tiny

    return synthesize_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf", "Q8_0")


def test_chance_is_the_best_of_what_needs_no_reading():
    def task(answer: str) -> Task:
        return Task("k", "q", ("1", "2", "3", "4"), answer)

    assert guessing([task("1"), task("1"), task("1"), task("2")]) == 0.75
    assert guessing([task(a) for a in "1234"]) == 0.25


@pytest.mark.engine
def test_the_child_answers_in_the_order_asked(tiny):
    from bench.answers_job import _tasks
    from bench.reasoning_tasks import make
    from harness.domain.scenario import Scenario
    from harness.runtimes.llamacpp.session import LlamaSession

    found = ask(tiny, Asked(chunk_count=2, task_count=0, thread_count=1))
    assert len(found.tokens.nll) == 2 * 255
    assert found.tasks == {}
    again = ask(tiny, Asked(chunk_count=2, task_count=0, thread_count=1))
    assert (again.tokens.nll == found.tokens.nll).all()
    with LlamaSession(tiny, Scenario(context_tokens=768, thread_count=1), sequence_count=9) as session:
        columns = _tasks(session, "counting", 3)
    # seeds 0 to 2 of counting
    assert columns["chance"].tolist() == [guessing([make("counting", n) for n in range(3)])] * 3
    assert (columns["confidence"] >= 0.25).all()


@pytest.mark.engine
def test_weights_without_meaning_are_refused(tiny):
    with pytest.raises(RefusedError, match="synthetic"):
        quant_quality(tiny, ["Q4_0"])
    with pytest.raises(RefusedError, match="IQ1_S"):
        quant_quality(tiny, ["IQ1_S"])
