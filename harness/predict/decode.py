"""Time of one decoded token: overhead, weights against bandwidth or dequantisation, and the KV cache.

    t = a L + ((B / (e W))^p + (c N / P)^p)^(1/p) + K / (k e W)          [s]

a: overhead of a layer (s); L: layers; B: weight bytes read; W: bandwidth of the specification (bytes/s); e: share of
it that is reached; N: weights read; P: fp32 peak (FLOP/s); c: FLOP of dequantisation and product for a weight; p = 3:
the slower of the two rules, with some loss where they are close; K: KV bytes read; k: efficiency of attention relative
to that of weights.
a, e, c and k are products of factors: ln a is a sum of terms by api, build year, family and so on. A term that is
unknown is 1, so an unseen chip gets its family's, and an unseen family its api's.

Source of the form: roofline (Williams et al. 2009) with a fixed cost for each pass, as kernels and barriers need.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from harness.predict.traits import Traits

Share = TypeVar("Share", float, NDArray[np.float64])

SMOOTHNESS: Final = 3.0
"""p above."""

CAP_SHARPNESS: Final = 8.0
"""How closely a share may come to its limit: at the limit by the law, 0.92 of it are reached. Smooth, so that a fit has
one minimum, whatever it starts from."""

REFERENCE_YEAR: Final = 2025.0
CURRENT_YEAR: Final = 2026.0
"""Build year assumed for a question about today's engine."""

Features = dict[str, tuple[tuple[str, float], ...]]


DEEP_TOKENS: Final = 3000
"""Mean context from which a row counts as deep."""


class Work(NamedTuple):
    """What one decoded token needs.

    Attributes:
        weight_bytes: Weight bytes read for one token.
        weight_count: Weights read for one token.
        layer_count: Transformer blocks.
        kv_bytes: KV bytes read at the mean depth.
        quant_class: ``f16 q8 q5 q4 q4k q3k q2k iq ternary``.
        moe: Whether experts are routed.
        prompt_weight_count: Weights that a token of a prompt goes through; 0: as many as one decoded token reads.
    """

    weight_bytes: float
    weight_count: float
    layer_count: float
    kv_bytes: float
    quant_class: str
    moe: bool = False
    prompt_weight_count: float = 0.0


class Machine(NamedTuple):
    """What runs it.

    Attributes:
        api: llama.cpp-class api; anything else counts as an unknown one.
        bandwidth_bytes_per_s: Of the specification.
        traits: Family and peaks.
        phone: Phone or tablet: it shares its power with nothing and throttles early.
        runtime: ``llama.cpp`` or another runtime's first word.
        build_year: Year of the engine's build.
    """

    api: str
    bandwidth_bytes_per_s: float
    traits: Traits
    phone: bool = False
    runtime: str = "llama.cpp"
    build_year: float = CURRENT_YEAR


class Terms(NamedTuple):
    """Seconds by cause; their sum is the time of one token."""

    overhead_s: float
    weights_s: float
    dequantisation_s: float
    kv_s: float

    @property
    def total_s(self) -> float:
        """Time of one token."""
        return self.overhead_s + self.weights_s + self.dequantisation_s + self.kv_s


def features(work: Work, machine: Machine) -> Features:
    """Which terms apply, by law: ``overhead``, ``efficiency``, ``compute``, ``attention``."""
    b, t, q = machine.api, machine.traits, work.quant_class
    year = min(max(machine.build_year, 2023.0), 2026.5) - REFERENCE_YEAR
    side = "cpu" if b == "cpu" else "npu" if b == "npu" else "gpu"
    overhead = [("a", 1.0), (f"a/{b}", 1.0), ("a/year", year), (f"a/year/{b}", year)]
    efficiency = [("e", 1.0), (f"e/{b}", 1.0), (f"e/{b}/{q}", 1.0)]
    compute = [("c", 1.0), (f"c/{side}", 1.0), (f"c/{q}", 1.0), (f"c/{side}/{q}", 1.0)]
    attention = [("k", 1.0), (f"k/{b}", 1.0)]
    if side == "gpu":
        efficiency.append(("e/bandwidth", math.log(machine.bandwidth_bytes_per_s / 4e11)))
    if side == "cpu":
        efficiency.append(("e/bandwidth/cpu", math.log(machine.bandwidth_bytes_per_s / 6e10)))
        compute.append(("c/bandwidth/cpu", math.log(machine.bandwidth_bytes_per_s / 6e10)))
    if t.family:
        overhead.append((f"a/{t.family}", 1.0))
        efficiency.append((f"e/{t.family}", 1.0))
        compute.append((f"c/{t.family}", 1.0))
    if side == "gpu" and t.memory:
        efficiency.append((f"e/memory/{t.memory}", 1.0))
        overhead.append((f"a/memory/{t.memory}", 1.0))
    if t.tier:
        efficiency.append((f"e/{side}/{t.tier}", 1.0))
        overhead.append((f"a/{side}/{t.tier}", 1.0))
    if work.moe:
        overhead += [("a/moe", 1.0), (f"a/moe/{b}", 1.0)]
        efficiency += [("e/moe", 1.0), (f"e/moe/{b}", 1.0)]
    if machine.phone:
        efficiency += [("e/phone", 1.0), (f"e/phone/{b}", 1.0)]
        overhead.append(("a/phone", 1.0))
    if machine.runtime != "llama.cpp":
        efficiency.append((f"e/runtime/{machine.runtime}", 1.0))
        overhead.append((f"a/runtime/{machine.runtime}", 1.0))
        compute.append((f"c/runtime/{machine.runtime}", 1.0))
    return {
        name: tuple(v)
        for name, v in (
            ("overhead", overhead),
            ("efficiency", efficiency),
            ("compute", compute),
            ("attention", attention),
        )
    }


def decode_gradient(work: Work, machine: Machine, values: Mapping[str, float]) -> dict[str, float]:
    """D ln t / d term for each term that applies: the share of the time that it scales."""
    listed = features(work, machine)
    laws = {name: _law(terms, values) for name, terms in listed.items()}
    parts = decode_seconds(work, machine, values)
    by_compute = laws["compute"] * work.weight_count / machine.traits.peak_flops_per_s
    both = parts.weights_s + parts.dequantisation_s
    compute = (by_compute / both) ** SMOOTHNESS * both if both else 0.0
    shares = {
        "overhead": parts.overhead_s,
        "efficiency": -(both - compute + parts.kv_s) * cap_slope(laws["efficiency"]),
        "compute": compute,
        "attention": -parts.kv_s * cap_slope(laws["attention"]),
    }
    return {key: shares[name] / parts.total_s * x for name, terms in listed.items() for key, x in terms}


def capped(share: Share) -> Share:
    """``share``, one or [rows], with a soft limit of 1: never above it."""
    limited: Share = share * cap_slope(share) ** (1 / CAP_SHARPNESS)
    return limited


def cap_slope(share: Share) -> Share:
    """D ln capped / d ln share."""
    slope: Share = 1 / (1 + share**CAP_SHARPNESS)
    return slope


def _law(terms: Iterable[tuple[str, float]], values: Mapping[str, float]) -> float:
    return math.exp(sum(values.get(key, 0.0) * x for key, x in terms))


def decode_seconds(work: Work, machine: Machine, values: Mapping[str, float]) -> Terms:
    """Seconds of one token by cause.

    ``values`` maps a term's key to its logarithm. The time of weights is that of bandwidth alone; what dequantisation
    adds to it is its own part. No prediction reads faster than the specification allows.
    """
    laws = {name: _law(terms, values) for name, terms in features(work, machine).items()}
    rate = capped(laws["efficiency"]) * machine.bandwidth_bytes_per_s
    by_bytes = work.weight_bytes / rate
    by_compute = laws["compute"] * work.weight_count / machine.traits.peak_flops_per_s
    both = (by_bytes**SMOOTHNESS + by_compute**SMOOTHNESS) ** (1 / SMOOTHNESS)
    return Terms(
        overhead_s=laws["overhead"] * work.layer_count,
        weights_s=by_bytes,
        dequantisation_s=both - by_bytes,
        kv_s=work.kv_bytes / (capped(laws["attention"]) * rate),
    )
