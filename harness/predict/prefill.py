"""Time of a prompt: arithmetic against the matrix peak, the attention's apart from that of the weights.

    t(n) = o + n 2 N / (m P) + A / (h m P)                      [s]

o: fixed cost; n: prompt tokens; N: weights a token goes through, the output's not among them; P: fp16 matrix peak
(FLOP/s); m: share of it that is reached, a product of factors by api, family, class of quantisation, size of the
prompt and of the peak itself; A: FLOP of the attention, which reaches h of what the weights do.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.domain.model import ModelShape
from harness.predict.decode import (
    REFERENCE_YEAR,
    Features,
    Machine,
    Work,
    cap_slope,
    capped,
)
from harness.predict.kv_cache import layer_counts

Array = NDArray[np.float64]


class Prompt(NamedTuple):
    """A prompt.

    Attributes:
        tokens: Its tokens.
        depth_tokens: Tokens in the cache before it.
        attention_flops: FLOP of the attention of all its tokens.
    """

    tokens: float
    depth_tokens: float
    attention_flops: float


def prompt_of(shape: ModelShape, tokens: float, depth_tokens: float) -> Prompt:
    """A prompt for a model of this shape.

    Each pair of a query and a key in view costs two products of a head's width (scores and values), 2 FLOP an entry;
    latent attention runs in the width of its cache.
    """
    full, sliding, _ = layer_counts(shape)
    if shape.latent is not None and shape.architecture != "minicpm3":
        width = 2 * shape.latent.kv_rank_dim + shape.latent.rope_head_dim
    else:
        width = shape.head_dim + (shape.value_head_dim or shape.head_dim)
    seen = depth_tokens + tokens / 2
    in_view = full * seen + sliding * min(seen, shape.sliding_window_tokens)
    return Prompt(tokens, depth_tokens, 2 * width * shape.head_count * tokens * in_view)


def prefill_features(work: Work, machine: Machine, prompt: Prompt) -> Features:
    """Which terms apply, by law: ``mfu``, ``attention`` and ``overhead``."""
    b, t, q = machine.api, machine.traits, work.quant_class
    year = min(max(machine.build_year, 2023.0), 2026.5) - REFERENCE_YEAR
    side = "cpu" if b == "cpu" else "npu" if b == "npu" else "gpu"
    short = math.log(min(max(prompt.tokens, 1.0), 512.0) / 512.0)
    size = math.log(max(work.prompt_weight_count or work.weight_count, 1e8) / 7e9)
    mfu = [
        ("m", 1.0),
        (f"m/{b}", 1.0),
        (f"m/{q}", 1.0),
        (f"m/{side}/{q}", 1.0),
        ("m/year", year),
        (f"m/year/{b}", year),
        ("m/short", short),
        (f"m/short/{side}", short),
        ("m/size", size),
        (f"m/size/{side}", size),
        ("m/long", math.log(max(prompt.tokens, 512.0) / 512.0)),
        ("m/peak", math.log(t.matrix_flops_per_s / 5e13)),
        (f"m/peak/{b}", math.log(t.matrix_flops_per_s / 5e13)),
    ]
    if t.family:
        mfu.append((f"m/{t.family}", 1.0))
    if t.tier:
        mfu.append((f"m/{side}/{t.tier}", 1.0))
    if not t.known_peak:
        mfu.append((f"m/guessed/{side}", 1.0))
    if work.moe:
        mfu += [("m/moe", 1.0), (f"m/moe/{b}", 1.0)]
    if machine.phone:
        mfu += [("m/phone", 1.0), (f"m/phone/{b}", 1.0)]
    if machine.runtime != "llama.cpp":
        mfu.append((f"m/runtime/{machine.runtime}", 1.0))
    attention = (("h", 1.0), (f"h/{b}", 1.0), ("h/year", year), (f"h/year/{b}", year))
    return {"mfu": tuple(mfu), "attention": attention, "overhead": (("o", 1.0), (f"o/{b}", 1.0))}


def prompt_flops(work: Work, prompt: Prompt) -> float:
    """FLOP of a prompt in weights: two for each weight and token."""
    return 2 * prompt.tokens * (work.prompt_weight_count or work.weight_count)


def prefill_seconds(work: Work, machine: Machine, prompt: Prompt, values: Mapping[str, float]) -> float:
    """Seconds to read a prompt."""
    return sum(_parts(work, machine, prompt, values)[1])


def prefill_gradient(work: Work, machine: Machine, prompt: Prompt, values: Mapping[str, float]) -> dict[str, float]:
    """D ln t / d term for each term that applies."""
    laws, (overhead, weights, attention) = _parts(work, machine, prompt, values)
    total = overhead + weights + attention
    shares = {
        "overhead": overhead / total,
        "mfu": -(weights + attention) / total * cap_slope(laws["mfu"]),
        "attention": -attention / total * cap_slope(laws["attention"]),
    }
    listed = prefill_features(work, machine, prompt)
    return {key: shares[name] * x for name, terms in listed.items() for key, x in terms}


def _parts(
    work: Work, machine: Machine, prompt: Prompt, values: Mapping[str, float]
) -> tuple[dict[str, float], tuple[float, float, float]]:
    """The laws' values; seconds of overhead, weights and attention."""
    laws = {
        name: math.exp(sum(values.get(key, 0.0) * x for key, x in terms))
        for name, terms in prefill_features(work, machine, prompt).items()
    }
    rate = capped(laws["mfu"]) * machine.traits.matrix_flops_per_s
    attention_s = prompt.attention_flops / (capped(laws["attention"]) * rate)
    return laws, (laws["overhead"], prompt_flops(work, prompt) / rate, attention_s)


def prefill_base(work: Work, machine: Machine, prompt: Prompt) -> tuple[float, float]:
    """Seconds of weights and of attention at the matrix peak, for the fit."""
    peak = machine.traits.matrix_flops_per_s
    return prompt_flops(work, prompt) / peak, prompt.attention_flops / peak


def prefill_model(base: Mapping[str, Array], designs: Mapping[str, Array], theta: Array) -> tuple[Array, Array]:
    """Ln t [rows] and its Jacobian [rows, terms], for the fit."""
    m, h, o = (np.exp(designs[name] @ theta) for name in ("mfu", "attention", "overhead"))
    rate = capped(m)
    weights, attention = base["weights"] / rate, base["attention"] / (capped(h) * rate)
    total = o + weights + attention
    jacobian = (
        o[:, None] * designs["overhead"]
        - ((weights + attention) * cap_slope(m))[:, None] * designs["mfu"]
        - (attention * cap_slope(h))[:, None] * designs["attention"]
    ) / total[:, None]
    return np.log(total), jacobian
