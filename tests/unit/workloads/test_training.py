"""Steps of training on a tiny model."""

from math import log

import pytest

from bench.tiny_gguf import synthesize_tiny
from harness.core.errors import RefusedError
from harness.workloads.training import SYSTEM


def test_what_the_steps_took_off_stands_beside_no_step():
    answers = [{"loss": 5.0, "tokens_per_s": 9.0, "mfu": None}, {"loss": 4.5, "tokens_per_s": 11.0, "mfu": 0.25}]
    scores = {score.name: score for score in SYSTEM.score([], answers)}
    assert (scores["tokens_per_s"].value, scores["mfu"].value, scores["mfu"].count) == (10.0, 0.25, 1)
    assert (scores["loss_gained_nats"].value, scores["loss_gained_nats"].nulls) == (0.5, {"no step": 0.0})


@pytest.mark.engine
def test_steps_of_the_engines_optimiser_lower_the_loss_of_the_batch_they_see(tmp_path):
    pytest.importorskip("llama_cpp", reason="the llama extra is not installed")
    from harness.runtimes.llamacpp.optimiser import TrainingSession

    path = synthesize_tiny(tmp_path / "tiny.gguf", "F32", layer_count=2)
    with pytest.raises(RefusedError, match="multiple of 256"):
        TrainingSession(path, 100, 1)
    session = TrainingSession(path, 256, 1)
    batch = session.tokenize("to be or not to be, " * 40)[:257]
    losses = [session.step(batch) for _ in range(6)]
    session.close()
    # at first every token is about as likely as any other
    assert losses[0] == pytest.approx(log(session.vocab_count), rel=0.3)
    assert losses[-1] < losses[0] - 0.01
