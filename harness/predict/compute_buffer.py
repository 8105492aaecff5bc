"""Scratch memory of one forward pass: what llama.cpp reserves, and what a run really touches.

The graph allocator lays all intermediate tensors of the worst case into one buffer and reuses room as soon as a tensor
is dead, so its size is the largest phase, not the sum. The reserve counts logits for every token of a batch
(ubatch x vocabulary x 4 bytes: 297 MiB for 512 tokens of a 152k vocabulary); pages that no run writes never become
resident on a CPU, while a GPU allocates them for good.

Source of the rule: llama.cpp, ggml/src/ggml-alloc.c and ``llama_context::sched_reserve``. The widths below were fitted
on SmolLM2-135M, Gemma-3-270M and Qwen2.5-0.5B (Q8_0, 4096 tokens of context, batches of 128 and 512).
"""

from typing import Final

from harness.domain.model import ModelShape
from harness.domain.scenario import Scenario
from harness.predict.kv_cache import padded

_FEED_FORWARD_COPIES: Final = 3.27
"""Gate, up and their product in F32, and the product again quantised for the down matrix (1.0625 / 4)."""
_HIDDEN_COPIES: Final = 3.2
"""Residual, normed input and output, each [tokens, hidden] in F32."""
_SCORE_COPIES: Final = 2
"""Without flash attention: scores and their softmax."""
_MASK_BYTES: Final = 2
"""One entry of the attention mask."""
_FIXED_BYTES: Final = 2_000_000
"""Graph, allocator tables and thread scratch."""


def activation_bytes(shape: ModelShape, tokens: int, cells: int, *, flash_attention: bool) -> int:
    """Bytes of the largest phase of a block for a batch of ``tokens`` over ``cells`` of cache, logits aside.

    Feed-forward phase: tokens x 4 x (3.27 x inner + 3.2 x hidden). Attention phase: tokens x 4 x (3.2 x hidden
    + 2 x queries + keys + values), and without flash attention 2 x heads x cells x tokens x 4 for the scores. The mask
    (cells x tokens x 2) lives through both.
    """
    hidden = _HIDDEN_COPIES * shape.hidden_dim
    inner = float(shape.feed_forward_dim)
    if shape.experts is not None:
        e = shape.experts
        routed = e.used_count * e.feed_forward_dim
        inner = max(inner, routed, e.shared_feed_forward_dim)
        hidden += e.used_count * shape.hidden_dim
    feed_forward = _FEED_FORWARD_COPIES * inner + hidden
    value = shape.value_head_dim or shape.head_dim
    heads = shape.head_count * (shape.head_dim + value) + shape.kv_head_count * (shape.head_dim + value)
    attention = _HIDDEN_COPIES * shape.hidden_dim + heads
    if not flash_attention:
        attention += _SCORE_COPIES * shape.head_count * cells
    mixer = 0.0
    if shape.recurrent is not None:
        r = shape.recurrent
        mixer = hidden + 4 * r.inner_dim + 2 * r.group_count * r.state_dim
    mask = _MASK_BYTES * cells if shape.head_count else 0
    return int(tokens * (4 * max(feed_forward, attention, mixer) + mask))


def touched_compute_bytes(shape: ModelShape, scenario: Scenario) -> int:
    """Bytes of scratch that a run makes resident on a CPU.

    The largest batch is a full one of the prompt, or of the tokens that stand before it: they were a prompt once.
    Logits exist only for the last token of each sequence, once in the graph and once in the output buffer.
    """
    s, prompt = scenario, max(scenario.prompt_tokens, 1)
    logits = 2 * s.batch_count * shape.vocab_count * 4
    batches = ((max(prompt, s.batch_count), s.depth_tokens + prompt), (s.depth_tokens, s.depth_tokens))
    activations = max(
        activation_bytes(shape, max(min(tokens, s.ubatch_tokens), 1), padded(cells), flash_attention=s.flash_attention)
        for tokens, cells in batches
    )
    return _FIXED_BYTES + logits + activations


def reserved_compute_bytes(shape: ModelShape, scenario: Scenario) -> int:
    """Bytes of the compute buffer that llama.cpp reserves: the larger of the block phase and the logits phase.

    Logits phase: tokens x (vocabulary + 2 x hidden) x 4, tokens = min(ubatch, context).
    """
    cells = padded(scenario.context_tokens)
    tokens = min(scenario.ubatch_tokens, cells)
    block = activation_bytes(shape, tokens, cells, flash_attention=scenario.flash_attention)
    return max(block, 4 * tokens * (shape.vocab_count + 2 * shape.hidden_dim))
