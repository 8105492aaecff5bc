"""Experts streamed on the real engine: a tiny synthetic mixture under a small budget gives the same tokens."""

import ctypes
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.made_models import synthesize
from harness.core.errors import RefusedError
from harness.core.model import Experts, ModelShape
from harness.core.scenario import Scenario
from harness.models.weights import weights_of
from harness.runtimes.llamacpp.session import LlamaSession
from harness.runtimes.llamacpp.speculative import generate
from harness.runtimes.llamacpp.stream_plan import Extent, whole_pages

pytest.importorskip("llama_cpp")
pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(sys.platform != "linux", reason="streaming needs mremap"),
]

SCENARIO = Scenario(context_tokens=256, ubatch_tokens=32, thread_count=1, repack=False)
PROMPT = [265, 309, 414, 320, 509, 414]
NEW_TOKENS = 40
SHAPES = {
    # odd widths: 24 or 40 rows of Q8_0 make slices that are no whole pages, so that neighbours share some
    "olmoe": ModelShape(
        architecture="olmoe", layer_count=4, hidden_dim=256, vocab_count=600, head_count=4, kv_head_count=4,
        head_dim=64, feed_forward_dim=0, context_max_tokens=4096, qk_norm=True,
        experts=Experts(expert_count=16, used_count=3, feed_forward_dim=224),
    ),
    "qwen2moe": ModelShape(
        architecture="qwen2moe", layer_count=3, hidden_dim=256, vocab_count=600, head_count=4, kv_head_count=2,
        head_dim=64, feed_forward_dim=0, context_max_tokens=4096, attention_bias=True,
        experts=Experts(
            expert_count=12, used_count=2, feed_forward_dim=160, shared_count=1, shared_feed_forward_dim=320
        ),
    ),
    "granitemoe": ModelShape(
        architecture="granitemoe", layer_count=3, hidden_dim=256, vocab_count=600, head_count=4, kv_head_count=2,
        head_dim=64, feed_forward_dim=0, tied_embeddings=True, context_max_tokens=4096,
        experts=Experts(expert_count=8, used_count=2, feed_forward_dim=96),
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=sorted(SHAPES))
def mixture(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = SHAPES[request.param]
    path = tmp_path_factory.mktemp("moe") / f"{request.param}.gguf"
    return synthesize(weights_of(shape, "Q8_0"), path)


def roomed(room_bytes: int) -> type:
    """A session with that much room for weights, whatever this very process holds already."""
    from harness.runtimes.llamacpp.expert_streaming import ExpertStreamedSession

    class Roomed(ExpertStreamedSession):
        def _make_plan(self, _room_bytes: int) -> bool:
            return super()._make_plan(room_bytes)

    return Roomed


def resident_bytes(base: int, extents: list[Extent]) -> int:
    """Bytes of whole pages of the extents that are in memory, as the system tells."""
    found = 0
    for start, end in (whole_pages(extent) for extent in extents):
        marks = (ctypes.c_ubyte * ((end - start) // 4096))()
        assert ctypes.CDLL(None).mincore(ctypes.c_void_p(base + start), ctypes.c_size_t(end - start), marks) == 0
        found += sum(m & 1 for m in marks) * 4096
    return found


def test_tokens_are_those_of_the_mapped_model_and_residency_is_bounded(mixture: Path) -> None:
    from harness.runtimes.llamacpp.stream_plan import expert_layout_of

    with LlamaSession(mixture, SCENARIO, batch_tokens=32) as session:
        expected = generate(session, PROMPT, NEW_TOKENS).tokens
    chosen = choices_of(mixture)
    layout = expert_layout_of(mixture)
    assert layout is not None
    room = layout.rest_bytes + layout.expert_bytes // 2
    with roomed(room)(mixture, SCENARIO, 1 << 40) as session:
        cache_bytes = session.plan.cache_bytes
        assert cache_bytes == layout.expert_bytes // 2
        session.reset()
        got = generate(session.session, PROMPT, NEW_TOKENS)
        report, use = session.report(), session.use()
        # pages of stacked tensors that hold parts of others stay; they are few
        assert resident_bytes(session._memory.base, layout.stacked) <= cache_bytes + 64 * 4096
        held = use.held_bytes
    assert got.tokens == expected
    assert report.pass_count == NEW_TOKENS
    assert held <= cache_bytes
    assert use.single_pass_count == NEW_TOKENS - 1
    layers = len(layout.layers)
    assert use.single_wanted_count == (NEW_TOKENS - 1) * layers * layout.used_count
    # the reference: what the mapped model's router chose in passes of one token
    assert np.array_equal(np.array(use.counts), chosen)
    assert 0 < use.hit_count < use.wanted_count
    assert report.read_bytes > 0


def choices_of(path: Path) -> np.ndarray:
    """Passes of one token that chose each expert [layers, experts], read through a tap's own way into the graph."""
    import ctypes

    layout_count = SHAPES[path.stem].experts
    assert layout_count is not None
    counts = np.zeros((SHAPES[path.stem].layer_count, layout_count.expert_count), np.int64)

    tokens = [0]

    def hook(node: int, ask: bool) -> bool:
        name = ctypes.string_at(node + 256)
        if ask:
            return name.startswith(b"ffn_moe_argsort-")
        used, layer = layout_count.used_count, int(name[16:])
        if layer == 0:  # the last layer of a prompt has one token too: only that whose logits are wanted
            tokens[0] = (ctypes.c_int64 * 4).from_address(node + 16)[1]
        if tokens[0] == 1:
            data = ctypes.c_void_p.from_address(node + 248).value
            counts[layer, list((ctypes.c_int32 * used).from_address(data))] += 1
        return True

    with LlamaSession(path, SCENARIO, batch_tokens=32, eval_hook=hook) as session:
        generate(session, PROMPT, NEW_TOKENS)
    return counts


def test_everything_fits(mixture: Path) -> None:
    from harness.runtimes.llamacpp.expert_streaming import ExpertStreamedSession

    with LlamaSession(mixture, SCENARIO, batch_tokens=32) as session:
        expected = generate(session, PROMPT, 12).tokens
    with ExpertStreamedSession(mixture, SCENARIO, 1 << 40) as session:
        assert not session.plan.streams
        assert generate(session.session, PROMPT, 12).tokens == expected
        assert session.report().read_bytes == 0


def test_what_cannot_be_streamed_by_expert_is_said(mixture: Path, tmp_path: Path) -> None:
    from bench.tiny_gguf import synthesize_tiny
    from harness.runtimes.llamacpp.expert_streaming import ExpertStreamedSession, open_streamed

    with pytest.raises(RefusedError, match="of weights must be in memory at once"):
        ExpertStreamedSession(mixture, SCENARIO, 10 << 20)
    with pytest.raises(RefusedError, match=r"^experts: the budget: found 10 MiB, .* Block by block: the budget"):
        open_streamed(mixture, SCENARIO, 10 << 20)
    dense = synthesize_tiny(tmp_path / "dense.gguf", "Q8_0")
    with pytest.raises(RefusedError, match="has no routed experts"):
        ExpertStreamedSession(dense, SCENARIO, 1 << 40)
    session, reason = open_streamed(dense, SCENARIO, 1 << 40)
    with session:
        assert (session.name, reason) == ("blocks", "")
