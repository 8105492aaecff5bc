"""Systems with a language model on the real engine, by a tiny model of random weights: what holds whatever it says."""

import numpy as np
import pytest

from bench.tiny_gguf import synthesize_tiny
from harness.errors import RefusedError
from harness.workloads.activations import ResidualStream
from harness.workloads.debate import SYSTEM as DEBATE
from harness.workloads.grounding_qa import SYSTEM as GROUNDING
from harness.workloads.parts import SystemParts
from harness.workloads.parts.language import LanguageModel
from harness.workloads.probe import SYSTEM as PROBE
from harness.workloads.reasoning import SYSTEM as REASONING
from harness.workloads.sparse_autoencoder import SYSTEM as AUTOENCODER
from harness.workloads.system import Context
from harness.workloads.testing import check_system

pytest.importorskip("llama_cpp", reason="the llama extra is not installed")
pytestmark = pytest.mark.engine

TEXT = 'def f(a, b):\n    return a + b  # says "7" (or so)\n' * 8


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> SystemParts:
    path = synthesize_tiny(tmp_path_factory.mktemp("systems") / "tiny.gguf", "Q8_0", layer_count=4)
    return SystemParts(LanguageModel.open(path, context_tokens=2048))


def test_activations_are_read_and_an_unchanged_stream_changes_nothing(parts):
    stream = ResidualStream(parts, 1)
    tokens = stream.tokens(TEXT)
    values = stream.read(tokens)
    assert values.shape == (len(tokens), stream.dim)
    assert np.isfinite(values).all()
    parts.language.forget()
    parts.language.read(tokens, logits="all")
    logits = [parts.language.session.logits(at).astype(np.float64) for at in range(1, len(tokens) - 1)]
    sums = [np.log(np.exp(row - row.max()).sum()) + row.max() for row in logits]
    plain = np.mean([s - row[token] for s, row, token in zip(sums, logits, tokens[2:], strict=True)])
    assert stream.loss(tokens) == pytest.approx(plain, abs=1e-4)
    assert stream.loss(tokens, np.zeros_like) != pytest.approx(plain, abs=1e-3)


@pytest.mark.parametrize("layer", [3, 4, 99])
def test_a_layer_that_cannot_be_read_is_refused(parts, layer):
    with pytest.raises(RefusedError, match="blocks 0 to 2"):
        ResidualStream(parts, layer)


@pytest.mark.parametrize("system", [DEBATE, GROUNDING, PROBE], ids=lambda s: s.name)
def test_a_system_keeps_its_promises(system, parts, tmp_path):
    check_system(system, tmp_path, size="small", parts=parts)


def test_reasoning_with_a_model_keeps_its_promises(parts, tmp_path):
    check_system(REASONING, tmp_path, size="statements", parts=parts)
    state = REASONING.prepare(parts, REASONING.sizes["default"] | {"program_count": 2}, Context(tmp_path, tmp_path))
    answer = REASONING.step(state, {"kind": "critic", "problem": "1 + 1?", "steps": ["1 + 1 = 3"], "label": 0})
    assert answer["first_error"] == answer["exact_only"] == 0


def test_a_dictionary_is_trained_once_kept_and_is_that_of_its_model(parts, tmp_path):
    stream = ResidualStream(parts)
    size = AUTOENCODER.sizes["small"] | {"dim": stream.dim, "step_count": 3, "train_tokens": 600}
    context = Context(tmp_path, tmp_path)
    state = AUTOENCODER.prepare(parts, size, context)
    again = AUTOENCODER.prepare(parts, size, context)
    np.testing.assert_array_equal(state.autoencoder.encoder, again.autoencoder.encoder)
    cases = [{"kind": "encode", "text": TEXT, "label": at % 2 == 0} for at in range(12)]
    cases.append({"kind": "loss", "text": TEXT})
    answers = [AUTOENCODER.step(state, case) for case in cases]
    scores = AUTOENCODER.score(cases, answers)
    assert scores["active_count"] <= size["active_count"]
    assert scores["sparse_probe"]["1"]["mid"] < 0.7  # texts that are alike tell nothing
    with pytest.raises(RefusedError, match=f"--size dim={stream.dim}"):
        AUTOENCODER.prepare(parts, size | {"dim": 7}, context)
