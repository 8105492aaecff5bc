"""Time of a prompt: arithmetic against the matrix peak, never less than one reading of the weights.

    t(n) = o + n F / (m P),    F = 2 N + 2 A (d + n / 2)                  [s]

o: fixed cost; n: prompt tokens; N: weights a token goes through; P: fp16 matrix peak (FLOP/s); m: share of it that is
reached, a product of factors by backend, family, class of quantisation, size of the prompt and of the peak itself;
A: attention products for each token of context, counted from the cache's width; d: depth before the prompt.
"""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from harness.feasibility.decode import REFERENCE_YEAR, Features, Machine, Work

Array = NDArray[np.float64]


def prefill_features(work: Work, machine: Machine, prompt_tokens: float, depth_tokens: float) -> Features:
    """Which terms apply, by law: ``mfu`` and ``overhead``."""
    b, t, q = machine.backend, machine.traits, work.quant_class
    year = min(max(machine.build_year, 2023.0), 2026.5) - REFERENCE_YEAR
    side = "cpu" if b == "cpu" else "npu" if b == "npu" else "gpu"
    short = math.log(min(max(prompt_tokens, 1.0), 512.0) / 512.0)
    size = math.log(max(work.weight_count, 1e8) / 7e9)
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
        ("m/long", math.log(max(prompt_tokens, 512.0) / 512.0)),
        ("m/depth", math.log1p(depth_tokens / 4096.0)),
        (f"m/depth/{b}", math.log1p(depth_tokens / 4096.0)),
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
    return {"mfu": tuple(mfu), "overhead": (("o", 1.0), (f"o/{b}", 1.0))}


def prompt_flops(work: Work, prompt_tokens: float, depth_tokens: float) -> float:
    """FLOP of a prompt: two for each weight and token, and attention over all that came before.

    Attention: 4 x width FLOP for each layer and token in view; the cache holds 4 x kv width bytes for each, and queries
    are some four times as many as keys: 4 FLOP a cached byte. ``work.kv_bytes`` is that of one token of context here.
    """
    return prompt_tokens * (2 * work.weight_count + 4 * work.kv_bytes * (depth_tokens + prompt_tokens / 2))


def prefill_seconds(
    work: Work, machine: Machine, prompt_tokens: float, depth_tokens: float, values: Mapping[str, float]
) -> float:
    """Seconds to read a prompt of ``prompt_tokens`` after ``depth_tokens``."""
    laws = {
        name: math.exp(sum(values.get(key, 0.0) * x for key, x in terms))
        for name, terms in prefill_features(work, machine, prompt_tokens, depth_tokens).items()
    }
    rate = min(laws["mfu"], 1.0) * machine.traits.matrix_flops_per_s
    return laws["overhead"] + prompt_flops(work, prompt_tokens, depth_tokens) / rate


def prefill_gradient(
    work: Work, machine: Machine, prompt_tokens: float, depth_tokens: float, values: Mapping[str, float]
) -> dict[str, float]:
    """D ln t / d term for each term that applies."""
    listed = prefill_features(work, machine, prompt_tokens, depth_tokens)
    laws = {name: math.exp(sum(values.get(key, 0.0) * x for key, x in terms)) for name, terms in listed.items()}
    total = prefill_seconds(work, machine, prompt_tokens, depth_tokens, values)
    overhead = laws["overhead"] / total
    shares = {"overhead": overhead, "mfu": overhead - 1 if laws["mfu"] <= 1 else 0.0}
    return {key: shares[name] * x for name, terms in listed.items() for key, x in terms}


def prefill_model(base: Mapping[str, Array], designs: Mapping[str, Array], theta: Array) -> tuple[Array, Array]:
    """Ln t [rows] and its Jacobian [rows, terms], for the fit."""
    m, o = np.exp(designs["mfu"] @ theta), np.exp(designs["overhead"] @ theta)
    work = base["flops"] / np.minimum(m, 1.0)
    total = o + work
    jacobian = (o[:, None] * designs["overhead"] - np.where(m > 1, 0.0, work)[:, None] * designs["mfu"]) / total[
        :, None
    ]
    return np.log(total), jacobian
