"""MFU of published runs , and steps of training on a tiny model."""

from fractions import Fraction
from math import log

import pytest

from bench.tiny_gguf import synthesize_tiny
from harness.errors import RefusedError
from harness.workloads.training import SYSTEM, Run, mfu, run_flops

RUNS = {case.name: case for case in SYSTEM.cases(SYSTEM.sizes["formulas"])}


@pytest.mark.parametrize("name", [name for name, case in RUNS.items() if case.stated_mfu is not None])
def test_stated_mfus_are_reproduced(name):
    """Within 1.4 points: nanochat states the MFU of its last step, and the formula gives that of the whole run."""
    assert float(mfu(RUNS[name])) == pytest.approx(RUNS[name].stated_mfu, abs=0.014)


@pytest.mark.parametrize(
    ("name", "stated", "tolerance"),
    [
        ("PaLM 540B", 0.462, 5e-4),  # arXiv:2204.02311, table 3
        ("PaLM 540B, attention left out", 0.457, 5e-4),
        ("MT-NLG 530B", 0.302, 5e-4),
    ],
)
def test_papers_to_their_last_digit(name, stated, tolerance):
    assert float(mfu(RUNS[name])) == pytest.approx(stated, abs=tolerance)


def test_the_seed_articles_mfu():
    assert mfu(RUNS["DeepSeek-V3, seed article"]) == pytest.approx(float(Fraction(4278125, 12532608)), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "flops"),
    [
        # as nanochat's own reports state them
        ("nanochat d20, October", 3.917670e19),
        ("nanochat d16", 4.096336e18),
        ("nanochat d24", 3.789436e19),
    ],
)
def test_flops_of_nanochat_are_those_of_its_reports(name, flops):
    assert float(run_flops(RUNS[name])) == pytest.approx(flops, rel=2e-7)


def test_the_score_is_the_distance_to_what_is_stated():
    numbers = {"parameter_count": 1, "token_count": 1, "device_hours": 1, "peak_flops_per_s": 1}
    cases = [
        Run(name="a", stated_mfu=0.5, **numbers),
        Run(name="b", stated_mfu=0.3, **numbers),
        Run(name="c", **numbers),
    ]
    (score,) = SYSTEM.score(cases, [{"mfu": 0.51}, {"mfu": 0.3}, {"mfu": 0.9}])
    assert (score.count, score.value) == (2, pytest.approx(0.005))


@pytest.mark.engine
def test_steps_of_the_engines_optimiser_lower_the_loss_of_the_batch_they_see(tmp_path):
    pytest.importorskip("llama_cpp", reason="the llama extra is not installed")
    from harness.runtimes.llamacpp.training import TrainingSession

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
