"""Synthetic models: written whole, well-formed for every type, read back as what they are, run by the real engine."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from bench.made_models import synthesize
from bench.tiny_gguf import synthesize_tiny
from harness.core.model import Experts, ModelShape, Tensor
from harness.core.scenario import Scenario
from harness.models.cards import model_names
from harness.models.ggml import BLOCKS
from harness.models.gguf import SkippedArray, read_gguf
from harness.models.gguf_write import write_gguf
from harness.models.names import load_model
from harness.models.random_weights import SYNTHETIC_TYPES, random_blocks
from harness.models.weights import weights_of
from harness.runtimes.llamacpp import RUNTIME
from harness.runtimes.llamacpp.session import LlamaSession

DENSE = {"layer_count": 6, "hidden_dim": 256, "vocab_count": 512, "head_count": 4, "kv_head_count": 2, "head_dim": 64}
EXPERTS = Experts(expert_count=8, used_count=2, feed_forward_dim=256)
SHAPES = {
    "llama": ModelShape(architecture="llama", feed_forward_dim=512, context_max_tokens=2048, **DENSE),
    "tied llama": ModelShape(
        architecture="llama", feed_forward_dim=512, context_max_tokens=2048, tied_embeddings=True, **DENSE
    ),
    "mixtral": ModelShape(
        architecture="llama", feed_forward_dim=0, context_max_tokens=2048, experts=EXPERTS, **DENSE
    ),
    "qwen2": ModelShape(
        architecture="qwen2", feed_forward_dim=512, context_max_tokens=2048, attention_bias=True, **DENSE
    ),
    "qwen3": ModelShape(architecture="qwen3", feed_forward_dim=512, context_max_tokens=2048, qk_norm=True, **DENSE),
    "qwen3moe": ModelShape(
        architecture="qwen3moe", feed_forward_dim=0, context_max_tokens=2048, qk_norm=True, experts=EXPERTS, **DENSE
    ),
    "gemma3": ModelShape(
        architecture="gemma3", feed_forward_dim=512, context_max_tokens=2048, qk_norm=True, tied_embeddings=True,
        sliding_window_tokens=512, sliding_step_count=6, **DENSE,
    ),
}  # fmt: skip


def decoded(path: Path, tokens: list[int]) -> np.ndarray:
    session = RUNTIME.open(path, Scenario(context_tokens=128, thread_count=2))
    try:
        session.decode(tokens, position=0)
        session.decode(tokens[:1], position=len(tokens))
        return np.array(session.logits())
    finally:
        session.close()


@pytest.mark.engine
@pytest.mark.parametrize("type_name", sorted(SYNTHETIC_TYPES))
def test_the_engine_runs_every_type(tmp_path: Path, type_name: str) -> None:
    """Logits are finite and not all one."""
    path = synthesize_tiny(tmp_path / "tiny.gguf", type_name, hidden_dim=256, feed_forward_dim=512, head_count=4)

    logits = decoded(path, [1, 5, 300])

    assert np.isfinite(logits).all()
    assert logits.std() > 0.01


@pytest.mark.engine
@pytest.mark.parametrize("name", SHAPES)
def test_the_engine_runs_every_family(tmp_path: Path, name: str) -> None:
    path = synthesize(weights_of(SHAPES[name], "Q4_K_M"), tmp_path / "tiny.gguf")

    assert np.isfinite(decoded(path, [1, 5, 300])).all()


@pytest.mark.parametrize("name", SHAPES)
def test_read_back_as_it_was_asked_for(tmp_path: Path, name: str) -> None:
    asked = weights_of(SHAPES[name], "Q4_K_M")
    path = synthesize(asked, tmp_path / "tiny.gguf", name="a name")
    header = read_gguf(path)
    found = header.weights()

    assert found.shape == asked.shape
    assert found.quant == "Q4_K_M"
    assert found.synthetic
    assert header.name == "a name"
    assert header.metadata["general.synthetic"] is True
    assert header.metadata["tokenizer.ggml.tokens"] == SkippedArray(8, 512)
    assert [(t.name, t.dims, t.type_name) for t in found.tensors] == [
        (t.name, t.dims, t.type_name) for t in asked.tensors
    ]


STAND_INS = {
    "deepseek-v4-flash", "deepseek-v4-pro", "glm-5.2", "glm-5.3-flash", "granite-swash-2b",
    "granite-swash-3b-a600m", "command-a-plus", "lfm3-1.7b", "mimo-v2.5-pro",
    "hunyuan-a13b", "inkling", "inkling-small", "k-exaone-236b-a23b", "kimi-k3", "kimi-linear-48b-a3b",
    "kolibri-1", "laguna-s-2.1", "laguna-xs-2.1", "lfm2-24b-a2b", "ling-3.0-flash", "ling-3.0-tiny",
    "mimo-v2-flash", "minimax-text-01", "muse-glimmer-30b", "north-mini-code-1.0", "recurrentgemma-2b",
    "starcoder2-15b", "starcoder2-3b", "starcoder2-7b", "step-3.5-flash", "trinity-large", "trinity-mini",
}  # fmt: skip
"""Models told by an architecture whose files cannot say how their layers differ."""


@pytest.mark.parametrize("name", [n for n in model_names() if load_model(n).shape.context_max_tokens])
def test_every_card_survives_the_way_through_a_header(name: str) -> None:
    """Shape to metadata and tensors and back; files of pure state-space models do not say that context is endless."""
    from bench.made_models import metadata_of
    from harness.models.gguf_shape import shape_from_metadata

    shape = load_model(name).shape
    metadata = metadata_of(shape, name=name, quant="Q4_K_M")

    found = shape_from_metadata(Path(name), shape.architecture, metadata, weights_of(shape, "Q4_K_M").tensors)

    assert (found == shape) != (name in STAND_INS)


# Mean 0 and standard deviation 0.02 is what the scales aim at; the reference package turns blocks into weights.
REFERENCE_TYPES = sorted(SYNTHETIC_TYPES - {"Q1_0", "Q2_0", "F32", "F16", "BF16"})


@pytest.mark.parametrize("type_name", REFERENCE_TYPES)
def test_weights_are_spread_as_trained_ones(type_name: str) -> None:
    gguf = pytest.importorskip("gguf", reason="the reference package, gguf, is not installed")
    block = BLOCKS[type_name]
    data = random_blocks(type_name, 2000, np.random.default_rng(0)).reshape(-1, block.size_bytes)

    weights = gguf.dequantize(data, gguf.GGMLQuantizationType[type_name])

    assert np.isfinite(weights).all()
    assert 0.015 < weights.std() < 0.03
    assert abs(weights.mean()) < 0.015


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    small = {"hidden_dim": 64, "feed_forward_dim": 64, "head_count": 2, "kv_head_count": 1}
    files = [synthesize_tiny(tmp_path / f"{i}.gguf", "Q4_0", seed=seed, **small) for i, seed in enumerate((7, 7, 8))]
    # The name in the header is the file's stem, one digit: the rest must agree.
    first, second, third = (f.read_bytes()[-10_000:] for f in files)
    assert first == second
    assert first != third


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def broken(out: object, tensor: Tensor) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_gguf(tmp_path / "x.gguf", {}, weights_of(SHAPES["llama"], "Q8_0").tensors, broken)
    assert not list(tmp_path.iterdir())


@pytest.mark.engine
def test_the_router_of_a_mixture_chooses_evenly(tmp_path: Path) -> None:
    """As the engine computes it: random tokens through the model, and its own choices counted."""
    import ctypes

    shape = msgspec.structs.replace(
        SHAPES["qwen3moe"], layer_count=3, experts=Experts(expert_count=16, used_count=4, feed_forward_dim=256)
    )
    path = synthesize(weights_of(shape, "Q8_0"), tmp_path / "m.gguf")
    counts = np.zeros((3, 16))

    def hook(node: int, ask: bool) -> bool:
        name = ctypes.string_at(node + 256)
        if ask:
            return name.startswith(b"ffn_moe_topk-")
        rows = (ctypes.c_int64 * 4).from_address(node + 16)[1]
        stride = (ctypes.c_size_t * 4).from_address(node + 48)[1]
        data = ctypes.c_void_p.from_address(node + 248).value
        assert data is not None
        for row in range(rows):
            counts[int(name[13:]), list((ctypes.c_int32 * 4).from_address(data + row * stride))] += 1
        return True

    scenario = Scenario(context_tokens=512, thread_count=2, repack=False)
    random = np.random.default_rng(3)
    with LlamaSession(path, scenario, batch_tokens=512, eval_hook=hook) as session:
        session.decode([int(t) for t in random.integers(0, 512, 512)], position=0, logits="all")
    assert counts.sum() == 3 * 512 * 4
    # 512 tokens, each with 4 of 16: a standard deviation of sqrt(512 x 1/4 x 3/4) = 9.8 tokens, 0.019
    assert counts / 512 == pytest.approx(0.25, abs=0.08)
