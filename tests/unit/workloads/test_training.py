"""Steps of training on a tiny model."""

from math import log
from pathlib import Path

import pytest

from bench.tiny_gguf import synthesize_tiny
from harness.answer.resolve import resolve_model
from harness.core.errors import RefusedError
from harness.workloads.system import Context
from harness.workloads.system_parts import SystemParts
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


def test_adapters_of_a_rank_take_less_than_whole_matrices_and_are_counted_only():
    weights = {"language": resolve_model("llama-3.1-8b").weights}
    size = SYSTEM.sizes["default"]
    whole, thin = (SYSTEM.held_bytes(size | {"lora_rank": rank}, weights) for rank in (0, 16))
    # Llama 3.1 8B at rank 16: 41,943,040 weights of adapters (Hu et al. 2021; as PEFT prints for all linear layers)
    assert whole - thin == 16 * (weights["language"].weight_count - 41_943_040)
    with pytest.raises(RefusedError, match="lora_rank"):
        SYSTEM.prepare(Context(SystemParts(), size | {"lora_rank": 16}, Path()))


def test_tokens_for_a_dollar_follow_from_the_price_of_an_hour():
    answers = [{"loss": 2.0, "tokens_per_s": 50.0, "mfu": None, "tokens_per_dollar": 360_000 * 50.0 / 200}] * 2
    scores = {score.name: score.value for score in SYSTEM.score([], answers)}
    assert scores["tokens_per_dollar"] == 90_000  # 50 tokens/s for half an hour at two dollars an hour
