"""Sampling, confidences and multiple choice: against a rule known by hand, and against the engine read another way."""

from math import e, log
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from bench import confidence
from bench.fake import FakeClock, FakeModel, FakeSession
from bench.self_consistency import by_separate_calls, with_kept_prefix
from harness.domain.scenario import Scenario
from harness.errors import RefusedError
from harness.workloads._language.generate import (
    Branches,
    Plan,
    in_one_batch,
    line_end,
)
from harness.workloads._language.judgement import choose
from harness.workloads._language.sampling import log_softmax_at, numbers, pick

WAYS = (in_one_batch, with_kept_prefix, by_separate_calls)


def fake(context_tokens: int = 4096) -> FakeSession:
    return FakeSession(FakeModel(), Scenario(context_tokens=context_tokens), FakeClock())


def rule(token: int, position: int) -> int:
    return (31 * token + 7 * position + 11) % 256


@pytest.mark.parametrize(("number", "token"), [(0.0, 0), (0.24, 0), (0.26, 1), (0.74, 1), (0.76, 2), (0.999, 2)])
def test_a_token_is_drawn_where_the_sum_passes_the_number(number, token):
    # chances 1/4, 1/2, 1/4: the sums are .25, .75, 1
    drawn = pick(np.log(np.array([1, 2, 1], np.float32)), 1.0, number)
    assert drawn.token == token
    assert drawn.log_probability == pytest.approx(log([0.25, 0.5, 0.25][token]), abs=1e-6)


def test_temperature_sharpens_and_zero_takes_the_best():
    logits = np.log(np.array([1, 2, 1], np.float32))
    # at 1/2 the chances are 1, 4, 1 of 6: the first ends at 1/6
    assert [pick(logits, 0.5, n).token for n in (0.16, 0.17, 0.83, 0.84)] == [0, 1, 1, 2]
    assert pick(logits, 0.0, 0.999).token == 1


def test_numbers_depend_on_seed_and_sample_alone():
    assert numbers(3, 5, 4) == numbers(3, 5, 4)
    assert numbers(3, 5, 4) == numbers(3, 5, 9)[:4]
    assert len({numbers(s, n, 1)[0] for s in range(3) for n in range(3)}) == 9


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=40))
def test_log_softmax_equals_a_plain_sum(values):
    z = np.array(values, np.float32)
    plain = z.astype(np.float64) - np.log(np.exp(z.astype(np.float64) - z.max()).sum()) - z.max()
    assert log_softmax_at(z, 1) == pytest.approx(plain[1], abs=1e-5)
    # logits ln 1, ln 2, ln 5: probabilities 1/8, 2/8, 5/8
    assert -log_softmax_at(np.log(np.array([1, 2, 5], np.float32)), 1) == pytest.approx(np.log(4))
    assert log_softmax_at(np.array([1000, 0], np.float32), 0) == 0.0


@pytest.mark.parametrize("way", WAYS)
def test_greedy_samples_follow_the_rule(way):
    session, prompt = fake(), [5, 9, 14]
    expected, token = [], prompt[-1]
    for position in range(2, 6):
        token = rule(token, position)
        expected.append(token)
    drawn = way(session, prompt, 3, Plan(new_tokens=4, temperature=0.0))
    assert [list(s.tokens) for s in drawn] == [expected] * 3
    # each token has probability e / (e + 255)
    assert drawn[0].log_probability == pytest.approx(4 * (1 - log(e + 255)), abs=1e-5)


@pytest.mark.parametrize(("way", "computed"), [(in_one_batch, 14), (with_kept_prefix, 14), (by_separate_calls, 24)])
def test_work_of_each_way(way, computed):
    # 5 tokens of prompt once or three times, and 3 samples x 3 steps after the first token
    session = fake()
    way(session, [1, 2, 3, 4, 5], 3, Plan(new_tokens=4))
    assert session._computed_count == computed


def test_samples_that_end_leave_the_batch():
    session, prompt = fake(), [5, 9, 14]
    first, second = rule(14, 2), rule(rule(14, 2), 3)
    plan = Plan(new_tokens=6, temperature=0.0, ends=lambda token: token == second)
    drawn = in_one_batch(session, prompt, 2, plan)
    assert [(list(s.tokens), s.step_count) for s in drawn] == [([first], 2)] * 2
    assert session._computed_count == 3 + 2


def test_branches_go_on_from_one_prompt_and_keep_a_prefix():
    session = fake()
    whole = in_one_batch(session, [5, 9, 14], 4, Plan(new_tokens=5, seed=2))
    branches = Branches(session, [5, 9, 14])
    assert branches.draw([0, 1], Plan(5, seed=2)) + branches.draw([2, 3], Plan(5, seed=2)) == whole
    kept = Branches(session, [5, 9, 20], kept_count=2)
    assert kept.read_count == 1
    assert kept.draw([0], Plan(3, 0.0))[0].tokens[0] == rule(20, 2)


def test_an_end_of_line_ends_an_answer():
    ends = line_end(fake())
    assert [ends(t) for t in (ord("\n"), ord("a"), 0)] == [True, False, True]


def test_choice_prefers_what_the_rule_continues():
    prompt = [5, 9, 14]
    first = rule(14, 2)
    second = rule(first, 3)
    options = [[first, (second + 1) % 256], [first, second], [(first + 1) % 256]]
    found = choose(fake(), prompt, options)
    on, off = 1 - log(e + 255), -log(e + 255)  # a token of the rule, another one
    assert found.scores == pytest.approx([(on + off) / 2, on, off], abs=1e-5)
    assert found.best == 1
    assert found.token_count == 3 + 2
    again = choose(fake_with(prompt), prompt, options, kept_count=2)
    assert again.scores == pytest.approx(found.scores)
    assert again.token_count == 1 + 2


def fake_with(prompt):
    session = fake()
    session.decode(prompt, position=0)
    return session


def test_normalisers_and_temperature_against_plain_sums_and_bisection():
    rng = np.random.default_rng(4)
    logits = (3 * rng.standard_normal((300, 50))).astype(np.float32)
    chances = np.exp(logits / 1.3)
    chances /= chances.sum(1, keepdims=True)
    labels = np.array([rng.choice(50, p=row / row.sum()) for row in chances.astype(np.float64)])
    top = logits.max(1)
    gaps = logits - top[:, None]
    normaliser = np.stack([confidence.normalisers_of(row) for row in gaps])
    for at, b in enumerate(confidence.INVERSE_TEMPERATURES):
        assert normaliser[:, at] == pytest.approx(np.log(np.exp(b * gaps.astype(np.float64)).sum(1)), abs=1e-5)
    gap = gaps[np.arange(300), labels].astype(np.float64)
    scores = confidence.TokenScores(np.exp(-normaliser[:, 10]), labels == logits.argmax(1), gap * 0, gap, normaliser)
    loss = lambda t: np.mean(np.log(np.exp(gaps / t).sum(1)) - gap / t)  # noqa: E731
    best = minimize_scalar(loss, bounds=(0.1, 10.0), method="bounded").x
    assert confidence.best_temperature(scores) == pytest.approx(best, rel=2e-3)
    p, nll = confidence.at_temperature(scores, 1.23)
    plain = np.exp(gaps.astype(np.float64) / 1.23)
    assert p == pytest.approx(1 / plain.sum(1), abs=5e-4)  # a parabola between values 0.05 apart
    assert nll == pytest.approx(np.log(plain.sum(1)) - gap / 1.23, abs=1e-3)
    with pytest.raises(RefusedError):
        confidence.at_temperature(scores, 5.0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("llama_cpp", reason="the llama extra is not installed")
    from bench.tiny_gguf import synthesize_tiny

    return synthesize_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf", "Q8_0")


@pytest.mark.engine
def test_scores_of_a_text_equal_the_ladders(tiny):
    from harness.runtimes.llamacpp.quality import score
    from harness.runtimes.llamacpp.session import LlamaSession

    rng = np.random.default_rng(1)
    chunk = [1, *rng.integers(3, 500, 255).tolist()]
    with LlamaSession(tiny, Scenario(context_tokens=256, thread_count=1)) as session:
        assert session.tokenize("") == chunk[:1]
        logs = score(session, chunk)
        found = confidence.score_text(session, chunk[1:], chunk_tokens=256)
    truth = np.array(chunk[129:])
    # Blocks of 64 and of 127 tokens take other kernels: some rows differ in the third digit, their mean does not.
    assert found.nll == pytest.approx(-logs[np.arange(127), truth], abs=0.05)
    assert found.nll.mean() == pytest.approx(-logs[np.arange(127), truth].mean(), abs=2e-3)
    assert found.top_probability == pytest.approx(np.exp(logs.max(1)), abs=5e-3)
    # every row's normaliser at b = 1 is the log of 1 / confidence
    assert found.normaliser[:, 10] == pytest.approx(-np.log(found.top_probability))


@pytest.mark.engine
def test_three_ways_on_the_engine_and_choice_read_plainly(tiny):
    from harness.runtimes.llamacpp.quality import log_probabilities
    from harness.runtimes.llamacpp.session import LlamaSession

    prompt = [1, 5, 9, 14, 20, 9, 14]
    scenario = Scenario(context_tokens=256, thread_count=1)
    with LlamaSession(tiny, scenario, sequence_count=5, output_tokens=16) as session:
        plan = Plan(new_tokens=8, seed=3)
        batch, kept, calls = (way(session, prompt, 4, plan) for way in WAYS)
        assert kept == calls
        assert sum(a.tokens == b.tokens for a, b in zip(batch, calls, strict=True)) >= 3
        assert len({s.tokens for s in batch}) > 1
        options = [[7, 8, 9], [11], [30, 31]]
        found = choose(session, prompt, options)
        for option, mean in zip(options, found.scores, strict=True):
            session.clear()
            session.decode(prompt + option, position=0, logits="all")
            logs = log_probabilities(session.all_logits())[len(prompt) - 1 : -1]
            assert mean == pytest.approx(np.mean(logs[np.arange(len(option)), option]), abs=0.02)
