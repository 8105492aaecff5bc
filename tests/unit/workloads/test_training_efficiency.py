"""Training: gradients against differences, FLOPs against the products made, published runs, and llama.cpp's logits."""

from fractions import Fraction

import numpy as np
import pytest
from msgspec.structs import replace

from harness.app.resolve import resolve_device
from harness.domain.model import ModelShape
from harness.ports import WorkloadContext
from harness.predict.moe import hit_ratio
from harness.workloads.training_efficiency import WORKLOAD, mixture
from harness.workloads.training_efficiency.figures import published
from harness.workloads.training_efficiency.finetune import lora, lora_on
from harness.workloads.training_efficiency.transformer import Config, Transformer

DENSE = Config(dim=16, layer_count=2, head_count=2, inner_dim=24, vocab_count=11)
SPARSE = DENSE._replace(expert_count=4, used_count=2, balance=0.5)


@pytest.mark.parametrize(
    ("name", "stated", "tolerance"),
    [
        # PaLM, arXiv:2204.02311, table 3 and section 4.1: 46.2 % with attention, 45.7 % without
        ("PaLM 540B", 0.462, 0.0005),
        ("PaLM 540B, attention left out", 0.457, 0.0005),
        # the same table: MT-NLG 530B 30.2 %, without attention 29.7 %
        ("MT-NLG 530B", 0.302, 0.0005),
        ("MT-NLG 530B, attention left out", 0.297, 0.001),
        # arXiv:2505.09343, table 4: 43.73 % non-causal, 38.94 % causal; 37B is a rounded count, so within 1.5 %
        ("DeepSeek-V3 with attention", 0.4373, 0.0066),
        ("DeepSeek-V3 with attention, causal half", 0.3894, 0.0058),
    ],
)
def test_published_runs(name, stated, tolerance):
    assert float(published()[name].mfu_ratio) == pytest.approx(stated, abs=tolerance)


def test_llama_3_by_its_published_totals():
    done = published()["Llama 3 405B"]
    assert float(done.flops_count) == pytest.approx(3.8e25, rel=0.005)  # arXiv:2407.21783, section 1
    assert float(done.mfu_ratio) == pytest.approx(3.79e25 / (30.84e6 * 3600 * 989e12), rel=0.001)


def test_the_causal_half_is_half_of_attention():
    whole, half = (published()[n] for n in ("PaLM 540B", "PaLM 540B, causal half"))
    assert whole.attention_flops_count == 2 * half.attention_flops_count
    assert float(half.mfu_ratio) == pytest.approx(0.4598, abs=5e-5)


def test_deepseek_v3_by_the_published_formula():
    reported = published()["DeepSeek-V3"]
    assert reported.flops_count == 32856 * 10**20
    assert float(reported.mfu_ratio) == pytest.approx(0.3464, abs=5e-5)
    # The seed article: 55 days on 2,048 devices; 6 x 37e9 x 14.8e12 / (2048 x 989e12 x 1320 x 3600)
    assert replace(reported, device_hours=2048 * 55 * 24).mfu_ratio == Fraction(4278125, 12532608)


def test_lora_by_hand():
    shape = ModelShape(
        architecture="llama", layer_count=2, hidden_dim=8, vocab_count=100, head_count=2, kv_head_count=1, head_dim=4,
        feed_forward_dim=16,
    )  # fmt: skip
    found = lora(shape, 2000, resolve_device("iphone-16-pro"))
    # a layer: q (8 + 8) + k, v 2 (8 + 4) + o (8 + 8) = 56, x rank 16 x 2 layers = 1792
    assert found.adapter_count == 1792
    # 2000 weights of 4.5 bits; 16 x 1792; of 512 tokens 34 x 8 bytes, 2 x 2 x 8 of inputs, 8 x 100 of logits
    assert found.memory_bytes == 1125 + 28_672 + 512 * (272 + 32 + 800)
    assert found.fits
    assert found.hours > 0


def test_lora_of_a_model_on_devices():
    found = lora_on("smollm2-135m", ("iphone-16-pro", "raspberry-pi-5"))
    assert all(row["memory_bytes"] > 134_515_008 * 4.5 / 8 and row["fits"] for row in found.values())
    assert found["raspberry-pi-5"]["hours"] > found["iphone-16-pro"]["hours"]


@pytest.mark.parametrize("config", [DENSE, SPARSE])
def test_every_gradient_is_the_slope_of_the_loss(config):
    model = Transformer(config, 3)
    for table in (model.weights, model.gradients):
        for name in table:
            table[name] = table[name].astype(np.float64)
    tokens = np.random.default_rng(0).integers(0, 11, (3, 9))
    model.backward(tokens)
    for name, gradient in model.gradients.items():
        at = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)
        weight = model.weights[name]
        kept, found = weight[at], []
        for step in (1e-5, -1e-5):
            weight[at] = kept + step
            found.append(model.loss(tokens) + model.balance_loss)
        weight[at] = kept
        assert (found[0] - found[1]) / 2e-5 == pytest.approx(gradient[at], rel=1e-5, abs=1e-7), name


def test_flops_by_hand_are_the_products_made():
    # a layer: 4 x 16 x 16 + 3 x 16 x 24 = 2,176 weights, two of them and 16 x 11 for the output: 4,528; 6 FLOP each
    # for 24 tokens, and attention 12 x 2 layers x 16 x 8 tokens for each
    assert DENSE.step_flops(3, 8) == 24 * (6 * 4528 + 12 * 2 * 16 * 8)
    for config in (DENSE, SPARSE):
        model = Transformer(config)
        model.backward(np.zeros((3, 9), np.int64))
        assert model.flops_count == config.step_flops(3, 8)


def test_workload_learns_with_true_gradients(tmp_path):
    size = WORKLOAD.sizes["small"]
    state = WORKLOAD.prepare(size, WorkloadContext(tmp_path, tmp_path, 3, 1))
    figures = WORKLOAD.check(state)
    assert figures["loss_after"] < figures["loss_before"]
    assert 0 < figures["mfu_ratio"] <= 1
    assert set(figures["lora"]["llama-3.2-1b"]) == {
        "iphone-16-pro", "pixel-9-pro", "raspberry-pi-5", "macbook-air-m3", "ryzen-7-7840hs",
    }  # fmt: skip


def test_a_router_of_known_habits():
    """Choices drawn by a law of exponent 1 and repeated with probability 0.4 give those two numbers back."""
    rng = np.random.default_rng(1)
    weight = np.arange(1, 17.0) ** -1.0
    made = np.empty((6000, 1, 1), np.int64)
    for at in range(len(made)):
        again = at and rng.random() < 0.4
        made[at] = made[at - 1] if again else rng.choice(16, p=weight / weight.sum())
    assert mixture.skew_of(made, 16) == pytest.approx(1.0, abs=0.08)
    assert mixture.reuse_of(made, 16) == pytest.approx(0.4, abs=0.03)
    # by hand: 1 2 1 3 2 with room for two; the second half, from the third on, hits 1 and misses 3 and 2
    assert mixture.replayed(np.array([1, 2, 1, 3, 2])[:, None, None], 2) == pytest.approx(1 / 3)
    for cached in (4, 8):
        predicted = hit_ratio(16, cached, skew=1.0, reuse_ratio=0.4)
        assert predicted == pytest.approx(mixture.replayed(made, cached), abs=0.03)


@pytest.mark.engine
def test_llama_cpp_runs_what_was_trained(tmp_path):
    """The file's logits in llama.cpp are those of this code, and the text goes in as its bytes."""
    llama_cpp = pytest.importorskip("llama_cpp")
    model = mixture.train(mixture.MIXTURE._replace(layer_count=2, expert_count=4), step_count=3)
    path = mixture.write(model, tmp_path / "tiny-mixture.gguf")
    engine = llama_cpp.Llama(str(path), n_ctx=128, logits_all=True, verbose=False)
    text = "The value is \u00e9t\u00e9.\n".encode()
    tokens = engine.tokenize(text, add_bos=False)
    assert tokens == list(text)
    engine.eval(tokens)
    expected = model.logits(np.array([tokens]))
    assert np.allclose(engine.scores[: len(tokens)], expected, atol=2e-3 * np.abs(expected).max())
