"""Buffers of split placements against those that llama.cpp told of, and the fullest moments by hand."""

import pytest

from harness.core.model import Experts, ModelShape
from harness.core.placement import Placement
from harness.core.prediction import ENGINE_BUFFERS
from harness.core.scenario import Scenario
from harness.core.units import MIB
from harness.hardware.devices import load_device
from harness.memory.compute_buffer import HOST, Layout, scratch_bytes, whole_layout
from harness.memory.peak import memory_of
from harness.models.weights import weights_of


def _dense(layers: int, hidden: int, vocab: int, heads: int, kv: int, dim: int, inner: int, **more) -> ModelShape:
    return ModelShape(architecture=more.pop("architecture", "llama"), layer_count=layers, hidden_dim=hidden,
                      vocab_count=vocab, head_count=heads, kv_head_count=kv, head_dim=dim, feed_forward_dim=inner,
                      context_max_tokens=8192, **more)  # fmt: skip


def _mixture(layers: int, hidden: int, vocab: int, heads: int, kv: int, dim: int, experts: tuple[int, int, int],
             architecture: str = "qwen3moe") -> ModelShape:  # fmt: skip
    count, used, inner = experts
    return _dense(layers, hidden, vocab, heads, kv, dim, 0, architecture=architecture, qk_norm=True,
                  experts=Experts(expert_count=count, used_count=used, feed_forward_dim=inner))  # fmt: skip


SHAPES = {
    "dense12": _dense(12, 768, 4096, 12, 4, 64, 2048),
    "mix8": _mixture(8, 512, 4096, 8, 8, 64, (16, 4, 512), "olmoe"),
    "dense6": _dense(6, 512, 2048, 8, 4, 64, 1536),
    "mix6": _mixture(6, 256, 2048, 4, 4, 64, (16, 3, 256), "olmoe"),
    "wide": _dense(4, 1024, 32000, 16, 2, 64, 2816),
    "tied": _dense(5, 576, 49152, 9, 3, 64, 1536, tied_embeddings=True),
    "q3moe": _mixture(6, 512, 8192, 8, 2, 128, (32, 8, 384)),
    # Drawn at random, and not looked at while the law was written.
    "norms": _dense(4, 1152, 40000, 16, 1, 80, 2304, architecture="qwen3", qk_norm=True),
    "one kv": _dense(9, 640, 16000, 8, 1, 64, 3200),
    "long rows": _dense(8, 640, 16000, 16, 8, 128, 2944),
    "many": _mixture(6, 832, 16000, 4, 1, 64, (64, 4, 512)),
    "six": _mixture(7, 704, 3000, 8, 4, 64, (24, 6, 576)),
}

# All buffers of the engine in MiB, GPU and host (mapped weights aside), as its log has them: llama-cpp-python 0.3.36,
# Vulkan on Mesa's software driver, Q8_0.
LOGGED = [
    # shape, context, ubatch, flash attention, GPU layers, experts with the CPU, cache on the GPU, GPU, host
    ("dense12", 2048, 512, True, "all", 0, True, 120.77, 5.03),
    ("dense12", 512, 256, False, 9, 0, True, 70.68, 4.52),
    ("mix8", 512, 64, True, "all", 0, True, 122.88, 0.33),
    ("mix8", 1024, 512, False, 6, 0, True, 108.65, 13.03),
    ("mix8", 512, 512, True, "all", 8, True, 34.70, 2.53),
    ("mix8", 4096, 128, True, 4, 8, True, 43.18, 41.77),
    ("dense6", 2048, 512, True, 6, 0, True, 42.29, 6.02),
    ("mix6", 512, 256, False, 2, 0, True, 8.82, 4.26),
    ("mix6", 512, 64, True, 6, 0, True, 22.09, 0.76),
    ("mix6", 1024, 512, False, "all", 3, True, 30.82, 4.02),
    ("wide", 4096, 128, True, "all", 0, False, 93.98, 10.12),
    ("tied", 2048, 512, True, "all", 0, False, 143.76, 11.95),
    ("q3moe", 512, 256, False, "all", 0, True, 141.48, 2.03),
    ("q3moe", 512, 64, True, "all", 0, False, 130.57, 3.34),
    ("q3moe", 1024, 512, False, "all", 6, True, 44.71, 5.04),
    ("one kv", 512, 512, True, 3, 0, True, 58.33, 3.95),
    ("one kv", 2048, 512, True, "all", 0, False, 105.68, 9.07),
    ("long rows", 512, 512, True, "all", 0, True, 136.61, 3.07),
    ("long rows", 512, 64, True, 8, 0, True, 96.67, 2.78),
    ("many", 2048, 512, True, 5, 0, True, 396.21, 6.32),
    ("many", 4096, 128, True, 6, 0, True, 469.80, 2.88),
    ("many", 512, 256, False, "all", 3, True, 302.99, 2.31),
    ("six", 512, 256, False, "all", 0, True, 234.58, 2.39),
    ("six", 512, 64, True, 5, 0, True, 139.88, 1.92),
    ("six", 512, 512, True, "all", 3, True, 162.26, 3.27),
]

# The same with GGML_VK_DISABLE_GRAPH_OPTIMIZE: nodes in the order in which the graph lists them, as CUDA computes them.
IN_ORDER = [
    ("norms", 2048, 512, True, "all", 0, True, 174.59, 6.66),
    ("norms", 4096, 128, True, 3, 0, True, 92.36, 4.78),
    ("norms", 2048, 512, True, 4, 0, True, 164.95, 7.28),
]


@pytest.mark.parametrize(("api", "row"), [*(("vulkan", row) for row in LOGGED), *(("cuda", row) for row in IN_ORDER)])
def test_each_pool_is_that_of_the_engine(api, row):
    name, context, ubatch, fused, layers, experts, kv_on_gpu, gpu_mib, host_mib = row
    placement = Placement(gpu_layers=layers, cpu_moe=experts, kv_on_gpu=kv_on_gpu)
    scenario = Scenario(context_tokens=context, ubatch_tokens=ubatch, flash_attention=fused, api=api,
                        placement=placement)  # fmt: skip
    memory = memory_of(weights_of(SHAPES[name], "Q8_0"), scenario, load_device("rtx-4060-desktop"))
    for pool, logged in (("vram", gpu_mib), ("ram", host_mib)):
        mine = (part for part in memory.parts if part.pool == pool and part.kind in ENGINE_BUFFERS)
        told = sum(part.anonymous_bytes for part in mine)
        assert told / MIB == pytest.approx(logged, rel=0.03 if ubatch > 128 else 0.08)


INPUTS = 64 * (4 + 4 + 16) + 64 * 256 * 2
"""Of 64 tokens and 256 cells: positions, ids of outputs, places in the cache; the mask in F16."""
TINY = Scenario(context_tokens=256, ubatch_tokens=64)


def test_the_fullest_moment_of_a_dense_block_is_its_feed_forward_part():
    """Three rows of hidden entries (the stream, what is normed, a hole of the queries) and three of the inner width."""
    shape = _dense(2, 64, 64, 1, 1, 64, 4096)
    here = scratch_bytes(shape, TINY, Layout(((0, 0, 0),) * 2, 0, api="cuda"))
    assert here == {0: INPUTS + 64 * 4 * 3 * (64 + 4096), HOST: INPUTS + 64 * 4 * (2 * 64 + 1)}  # rows, tokens


@pytest.mark.parametrize(("tokens", "copied"), [(64, 10**8), (16, 0)])
def test_from_32_tokens_on_a_card_gets_a_copy_of_a_weight_that_lies_with_the_cpu(tokens, copied):
    shape = _dense(2, 64, 64, 1, 1, 64, 4096)
    away = Layout(((HOST, HOST, HOST),) * 2, 0, (("ffn_down", 10**8),), api="cuda")
    found = scratch_bytes(shape, TINY.replace(ubatch_tokens=tokens), away)
    assert found[0] // 10**8 == copied // 10**8
    assert found[HOST] < 3 * 10**6


def test_the_logits_of_a_whole_batch_are_the_fullest_moment_of_a_wide_vocabulary():
    shape = _dense(2, 64, 10**6, 1, 1, 64, 128)
    here = scratch_bytes(shape, TINY, whole_layout(shape, "cuda"))
    assert here[0] == 64 * 4 * (64 + 10**6)
    slots = scratch_bytes(shape, TINY.replace(program="llama-server -np 1"), whole_layout(shape, "cuda"))
    assert slots[0] < here[0] / 50


def test_scores_are_laid_whole_where_attention_is_not_fused():
    """Of 4 heads and 8192 cells by 64 tokens in F32, beside the mask in F32."""
    shape = _dense(1, 256, 64, 4, 4, 64, 256)
    asked = TINY.replace(context_tokens=8192)
    whole, fused = (
        scratch_bytes(shape, asked.replace(flash_attention=f), whole_layout(shape, "cuda"))[0] for f in (False, True)
    )
    assert whole - fused == pytest.approx(64 * 4 * 8192 * 4 + 64 * 8192 * 2, rel=0.02)


def test_a_cache_in_eight_bits_is_copied_to_f16_for_fused_attention_by_cuda():
    shape = _dense(1, 256, 64, 4, 4, 64, 256)
    asked = TINY.replace(context_tokens=1 << 17)
    layout = whole_layout(shape, "cuda")
    narrow, plain = (scratch_bytes(shape, asked.replace(kv_type=name), layout)[0] for name in ("Q8_0", "F16"))
    assert narrow - plain == pytest.approx(2 * (1 << 17) * 2 * 256, rel=0.01)
