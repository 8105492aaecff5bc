"""Training figures, exact, by hand."""

from fractions import Fraction

import pytest

from harness.app.resolve import resolve_device
from harness.domain.model import ModelShape
from harness.errors import RefusedError
from harness.workloads.training_efficiency.figures import DEEPSEEK_V3, DEEPSEEK_V3_REPORTED, efficiency, hours_for
from harness.workloads.training_efficiency.finetune import lora


def test_deepseek_v3_by_the_published_formula():
    done = efficiency(DEEPSEEK_V3)
    # 6 x 37e9 x 14.8e12 / (2048 x 989e12 x 1320 x 3600)
    assert done.mfu_ratio == Fraction(4278125, 12532608)
    assert done.cost_dollars == 5_406_720
    assert done.flops_count == 32856 * 10**20
    assert int(done.tokens_per_dollar) == 2_737_334
    assert float(hours_for(DEEPSEEK_V3, Fraction(52, 100))) * 2048 == pytest.approx(1.775e6, rel=1e-3)
    assert float(efficiency(DEEPSEEK_V3_REPORTED).mfu_ratio) == pytest.approx(0.3464, abs=5e-5)


def test_attention_adds_its_share():
    # 6 x 10 + 6 x 4 x 5 = 180 per token
    run = DEEPSEEK_V3._replace(active_parameter_count=10, token_count=7, attention_dim=4, sequence_tokens=5)
    assert efficiency(run).flops_count == 180 * 7


@pytest.mark.parametrize(
    "field", ["hours", "device_count", "peak_flops_per_s", "dollars_per_device_hour", "token_count"]
)
def test_zeros_are_refused(field):
    with pytest.raises(RefusedError, match=field):
        efficiency(DEEPSEEK_V3._replace(**{field: 0}))
    with pytest.raises(RefusedError):
        efficiency(DEEPSEEK_V3._replace(parameter_count=1))


def test_lora_by_hand():
    shape = ModelShape(
        architecture="llama", layer_count=2, hidden_dim=8, vocab_count=100, head_count=2, kv_head_count=1, head_dim=4,
        feed_forward_dim=16,
    )  # fmt: skip
    found = lora(shape, 1000, 500, resolve_device("iphone-16-pro"), rank=2, batch_tokens=10)
    # a layer: q (8 + 8) + k, v 2 (8 + 4) + o (8 + 8) = 56, x rank 2 x 2 layers = 224
    assert found.adapter_count == 224
    # 1000 + 16 x 224 + (34 x 10 x 8 + 2 x 2 x 10 x 8) + 8 x 10 x 100
    assert found.memory_bytes == 1000 + 3584 + 2720 + 320 + 8000
    assert found.fits
    assert found.hours > 0


def test_workload_learns_with_true_gradients(tmp_path):
    from harness.ports import WorkloadContext
    from harness.workloads.training_efficiency import WORKLOAD

    size = WORKLOAD.sizes["small"]
    state = WORKLOAD.prepare(size, WorkloadContext(tmp_path, tmp_path, 3, 1))
    figures = WORKLOAD.check(state)
    assert figures["loss_after"] < figures["loss_before"]
    assert {c.operation for c in WORKLOAD.costs(size)} == {o.name for o in WORKLOAD.operations(state)}
