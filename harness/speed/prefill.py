"""Time of a prompt: arithmetic against the matrix peak, the attention's apart from that of the weights.

    t(n) = g (o b L / 32 + n 2 N / (m P) + A / (h m P) + b B / W) (1 + (b - 1) / d) / b,   b = max(n / u, 1)       [s]

o: fixed cost of 32 layers for a batch; L: layers; b: batches of u tokens (llama.cpp's ubatch); n: prompt
tokens; N: weights a token goes through, the output's not among them; P: fp16 matrix peak (FLOP/s), on a CPU
of the threads that run; m: share of it that is reached, a product of factors by api, family, class of
quantisation, kernels that there are, size of the prompt and of the peak; A: FLOP of the attention, which
reaches h of what the weights do; B: bytes of all weights, all experts among them, which every batch reads; W:
bandwidth; g: what a chip, a runtime or a model takes beyond all of it; d: cards that each have a part of the
layers, at most four, as batches follow one another through them (ggml-backend.cpp, pipeline parallelism).
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from harness.core.model import ModelShape
from harness.models.architecture import has
from harness.speed.terms import cap_slope, capped, features, gradient_of, laws_of
from harness.speed.work import Machine, Work

BATCH_TOKENS: Final = 512
"""Tokens of a prompt that go through the weights together where nobody says (llama.cpp's ubatch)."""


INT8_RATIO: Final = 2.0
"""int8 against fp16 on matrix units; no prompt is faster than that."""


BATCHES_AT_ONCE: Final = 4
"""Batches that several cards work on at once (llama.cpp's GGML_SCHED_MAX_COPIES)."""


class Prompt(NamedTuple):
    """A prompt.

    Attributes:
        tokens: Of it.
        attention_flops: FLOP of the attention of all of them.
        card_count: Cards that each have a part of the layers.
        batch_tokens: Most tokens that go through the weights together.
    """

    tokens: float
    attention_flops: float
    card_count: int = 1
    batch_tokens: float = BATCH_TOKENS


def prompt_of(shape: ModelShape, tokens: float, depth_tokens: float) -> Prompt:
    """A prompt for a model of this shape: pairs of a query and a key in view, 2 FLOP for each entry of their width."""
    kinds, width = shape.layer_kinds, attention_width(shape)  # layers too that share another's cache
    seen = depth_tokens + tokens / 2
    in_view = kinds.count("full") * seen + kinds.count("sliding") * min(seen, shape.sliding_window_tokens)
    return Prompt(tokens, 2 * width * shape.head_count * tokens * in_view)


def attention_width(shape: ModelShape) -> int:
    """Entries of a key and a value together; latent attention runs in the width of its cache."""
    if shape.latent is not None and not has(shape.architecture, "every_head_cached"):
        return 2 * shape.latent.kv_rank_dim + shape.latent.rope_head_dim
    return shape.head_dim + (shape.value_head_dim or shape.head_dim)


def prefill_base(work: Work, machine: Machine, prompt: Prompt) -> dict[str, float]:
    """Seconds of weights (2 FLOP each and a token) and of attention at the matrix peak, and of reading all weights."""
    peak = machine.clock_ratio * machine.traits.matrix_flops_per_s
    batches = max(prompt.tokens / prompt.batch_tokens, 1.0)
    turns = (1 + (batches - 1) / min(prompt.card_count, BATCHES_AT_ONCE)) / batches
    seconds = {
        "weights": 2 * prompt.tokens * (work.prompt_weight_count or work.weight_count) / peak,
        "attention": prompt.attention_flops / peak,
        "launches": batches * work.layer_count / 32,
        "bytes": batches * (work.prompt_bytes or work.weight_bytes) / machine.bandwidth_bytes_per_s,
    }
    return {name: turns * value for name, value in seconds.items()}


def prefill_parts(base: Mapping[str, Any], laws: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Seconds of a prompt, and d ln t / d ln law; numbers or arrays of rows alike."""
    rate = INT8_RATIO * capped(laws["mfu"] / INT8_RATIO)
    weights = base["weights"] / rate
    # The product is capped, and not its parts: a kernel of attention may reach more of the peak than the weights' does.
    reached = laws["attention"] * laws["mfu"]
    attention = base["attention"] / capped(reached)
    over = laws["overhead"] * base["launches"]
    total = over + weights + attention + base["bytes"]
    slopes = {
        "overhead": over / total,
        "mfu": -(weights * cap_slope(laws["mfu"] / INT8_RATIO) + attention * cap_slope(reached)) / total,
        "attention": -attention / total * cap_slope(reached),
        "scale": total / total,
    }
    return total * laws["scale"], slopes


def prefill_seconds(work: Work, machine: Machine, prompt: Prompt, values: Mapping[str, float]) -> float:
    """Seconds to read a prompt."""
    base = prefill_base(work, machine, prompt)
    seconds: float = prefill_parts(base, laws_of(features("prefill", work, machine, prompt.tokens), values))[
        0
    ]
    return max(seconds, (base["weights"] + base["attention"]) / INT8_RATIO, base["bytes"])


def prefill_gradient(
    work: Work, machine: Machine, prompt: Prompt, values: Mapping[str, float]
) -> dict[str, float]:
    """D ln t / d term for each term that applies."""
    listed = features("prefill", work, machine, prompt.tokens)
    return gradient_of(listed, prefill_parts(prefill_base(work, machine, prompt), laws_of(listed, values))[1])
