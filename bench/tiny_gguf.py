"""A small llama with random weights, for tests, drills and fuzzing: a file that the engine loads in milliseconds.

Its tensors keep an order of their own. Their random bytes are drawn in that order, and what such a model answers hangs
on them: in a converter's order it says filler words (``t275``), which its tokenizer cuts into bytes when they come back
as text, and a verifier that goes by text cannot follow. The same bytes laid in another order give the same answers.
"""

from pathlib import Path

from msgspec.structs import replace

from bench.made_models import synthesize
from harness.core.model import Weights
from harness.measure.probe.tiny_model import tiny_shape
from harness.models.weights import tensor_of


def synthesize_tiny(
    path: Path,
    type_name: str,
    *,
    layer_count: int = 2,
    hidden_dim: int = 512,
    feed_forward_dim: int = 1024,
    vocab_count: int = 512,
    head_count: int = 8,
    kv_head_count: int = 4,
    seed: int = 0,
) -> Path:
    """Write a small llama whose matrices are all of one ggml type, with its token table as the output matrix.

    Raises:
        ValueError: A row is no whole number of blocks.
    """
    head = hidden_dim // head_count
    sizes = (layer_count, hidden_dim, feed_forward_dim, head_count, kv_head_count, vocab_count)
    shape = replace(tiny_shape(*sizes), head_dim=head)
    tensors = [
        tensor_of("token_embd.weight", (hidden_dim, vocab_count), type_name),
        tensor_of("output_norm.weight", (hidden_dim,), "F32"),
    ]
    matrices = {
        "attn_q": (hidden_dim, head * head_count),
        "attn_k": (hidden_dim, head * kv_head_count),
        "attn_v": (hidden_dim, head * kv_head_count),
        "attn_output": (head * head_count, hidden_dim),
        "ffn_gate": (hidden_dim, feed_forward_dim),
        "ffn_up": (hidden_dim, feed_forward_dim),
        "ffn_down": (feed_forward_dim, hidden_dim),
    }
    for layer in range(layer_count):
        at = f"blk.{layer}."
        tensors += [tensor_of(f"{at}{norm}.weight", (hidden_dim,), "F32") for norm in ("attn_norm", "ffn_norm")]
        tensors += [tensor_of(f"{at}{key}.weight", dims, type_name) for key, dims in matrices.items()]
    size = sum(t.size_bytes for t in tensors)
    weights = Weights(shape=shape, tensors=tuple(tensors), file_bytes=size, quant=type_name, synthetic=True)
    return synthesize(weights, path, seed=seed)
