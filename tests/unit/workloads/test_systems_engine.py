"""Systems with a language model on the real engine, by a tiny model of random weights: what holds whatever it says."""

import json

import numpy as np
import pytest

from bench.tiny_gguf import synthesize_tiny
from harness.workloads.chain import Meter, Op
from harness.workloads.escalate import SYSTEM as ANSWER
from harness.workloads.inspection import SYSTEM as INSPECT
from harness.workloads.inspection import Dictionary, Loss, Probe, ResidualStream, left_out
from harness.workloads.oversight import SYSTEM as OVERSIGHT
from harness.workloads.reason import SYSTEM as REASON
from harness.workloads.reason import Solve
from harness.workloads.system import Context
from harness.workloads.system_parts import LanguageModel, SystemParts

pytest.importorskip("llama_cpp", reason="the llama extra is not installed")
pytestmark = pytest.mark.engine

TEXT = 'def f(a, b):\n    return a + b  # says "7" (or so)\n' * 8


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> SystemParts:
    path = synthesize_tiny(tmp_path_factory.mktemp("systems") / "tiny.gguf", "Q8_0", layer_count=4)
    meter = Meter()
    return SystemParts(LanguageModel.open(path, meter, context_tokens=2048), meter=meter)


def test_activations_are_read_and_an_unchanged_stream_changes_nothing(parts):
    stream = ResidualStream(parts)
    tokens = stream.tokens(TEXT)
    values = stream.read(tokens)
    assert values.shape == (len(tokens), stream.dim)
    assert np.isfinite(values).all()
    parts.language.forget()
    parts.language.read(tokens, logits="all")
    logits = [parts.language.session.logits(at).astype(np.float64) for at in range(1, len(tokens) - 1)]
    sums = [np.log(np.exp(row - row.max()).sum()) + row.max() for row in logits]
    plain = np.mean([s - row[token] for s, row, token in zip(sums, logits, tokens[2:], strict=True)])
    assert stream.loss(tokens, lambda values: values) == pytest.approx(plain, abs=1e-4)
    assert stream.loss(tokens, np.zeros_like) != pytest.approx(plain, abs=1e-3)


@pytest.mark.parametrize("system", [OVERSIGHT, ANSWER], ids=lambda s: s.name)
def test_a_systems_answers_are_json_and_are_scored(system, parts, tmp_path):
    size = system.sizes["small"]
    state = system.prepare(Context(parts, size, tmp_path))
    cases = system.cases(size)
    answers = [system.step(state, case) for case in cases]
    json.dumps(answers)
    assert all(score.count for score in system.score(cases, answers))


def test_a_program_is_written_and_worked(parts, tmp_path):
    state = REASON.prepare(Context(parts, {}, tmp_path))
    parts.meter.drain()
    assert isinstance(REASON.step(state, Solve(problem="1 + 1?", answer="2"))["answer"], str)
    assert {one.op for one in parts.meter.drain()} <= {Op.READ, Op.WRITE}


def test_a_dictionary_stands_beside_components(parts, tmp_path):
    size = INSPECT.sizes["small"] | {"round_count": 2, "train_tokens": 600, "active_count": 4}
    state = INSPECT.prepare(Context(parts, size, tmp_path))
    parts.meter.drain()
    cases = [Probe(text=TEXT, label=True), Loss(text=TEXT)]
    answers = [INSPECT.step(state, case) for case in cases]
    assert [one.op for one in parts.meter.drain()] == [Op.TAP, Op.ENCODE, *[Op.TAP] * 6]
    (score,) = INSPECT.score(cases, answers)
    assert set(score.nulls) == {"the mean", "as many principal components", "as many random features"}


def test_a_planted_direction_is_read_and_no_row_is_judged_by_what_saw_it():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, 60))
    labels = rng.random(100) < 0.5
    assert 0.3 < np.mean(left_out(x, labels)) < 0.7
    x[:, 7] += np.where(labels, 3, -3)
    assert np.mean(left_out(x, labels)) > 0.8
    # rows that are all alike but for their own number can be learnt by heart, and are predicted at chance
    assert np.mean(left_out(np.eye(100), labels)) < 0.65


def test_the_largest_features_above_zero_are_kept():
    rng = np.random.default_rng(0)
    encoder, decoder, mean, x = (rng.standard_normal(shape) for shape in ((12, 40), (40, 12), (12,), (7, 12)))
    h = (x - mean) @ encoder
    z = np.where(h >= np.sort(h, axis=1)[:, -5:-4], np.maximum(h, 0), 0)
    one = Dictionary(encoder, decoder, mean, 5)
    np.testing.assert_allclose(one.encode(x), z)
    np.testing.assert_allclose(one.rebuilt(x), z @ decoder + mean)


def test_a_fitted_dictionary_explains_planted_features():
    rng = np.random.default_rng(5)
    planted = rng.standard_normal((48, 24)).astype(np.float32)
    planted /= np.linalg.norm(planted, axis=1, keepdims=True)
    codes = np.zeros((4000, 48), np.float32)
    for row in codes:
        row[rng.choice(48, 3, replace=False)] = rng.uniform(1, 2, 3)
    x = codes @ planted + np.float32(0.5)
    mean = x.mean(axis=0)
    drawn = x[rng.integers(0, len(x), 48)] - mean
    made = Dictionary(drawn.T, drawn, mean, 3)
    left = []
    for _ in range(30):
        made = made.fitted(x)
        left.append(np.sum((made.rebuilt(x) - x) ** 2) / np.sum((x - mean) ** 2))
    # three principal components leave 1 - 3 / 24 of it, about
    assert left[-1] < left[0]
    assert left[-1] < 0.5
