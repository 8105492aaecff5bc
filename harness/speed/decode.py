"""Time of one decoded token: overhead, weights against bandwidth or dequantisation, and the KV cache.

    t = s (a L + ((B / (e W))^p + (c N / P)^p)^(1/p) + K / (k e W))          [s]

a: overhead of a layer (s); L: layers; B: weight bytes read; W: bandwidth of the specification (bytes/s); e:
share of it that is reached; N: weights read; P: peak of the shaders, or of the threads that run on a CPU
(FLOP/s); c: FLOP of dequantisation and product for a weight; p = 3: the slower of the two rules, with some
loss where they are close; K: KV bytes read; k: efficiency of attention relative to that of weights; s: what a
chip, a runtime or a model takes beyond. a, e, c, k and s are products of terms (``data/terms.toml``). A term
that is unknown is 1, so an unseen chip gets its family's, and an unseen family its api's.

Source of the form: roofline (Williams et al. 2009) with a fixed cost for each pass, as kernels and barriers
need.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from harness.speed.terms import cap_slope, capped, features, gradient_of, laws_of
from harness.speed.work import Machine, Work

SMOOTHNESS: Final = 3.0
"""p above."""


CLOCK_OF_MEMORY: Final = 1.7
"""Share of its bandwidth that a chip can ask for, over its share of its clock: a 3090 decodes at 0.94 of its
speed at 0.59 of its clock, and at 0.17 at 0.14; a 4090 at 0.80 at 0.48 (power.csv, and two more limits of a
3090)."""


class Terms(NamedTuple):
    """Seconds by cause, which sum to the time of a pass.

    ``link_s`` is the time of transfers between parts in several memories.
    """

    overhead_s: float = 0.0
    weights_s: float = 0.0
    dequantisation_s: float = 0.0
    kv_s: float = 0.0
    link_s: float = 0.0

    @property
    def total_s(self) -> float:
        """Time of the pass."""
        return self.overhead_s + self.weights_s + self.dequantisation_s + self.kv_s + self.link_s

    def times(self, factor: float) -> "Terms":
        """Each part as often."""
        return Terms(*(factor * own for own in self))

    def plus(self, other: "Terms") -> "Terms":
        """Both, part by part."""
        return Terms(*(own + more for own, more in zip(self, other, strict=True)))


_LEAST_S: Final = 1e-30


def decode_base(work: Work, machine: Machine) -> dict[str, float]:
    """Seconds at the speeds of the specification: bytes of weights and KV cache, and the start of each layer."""
    # what a chip asks of its memory goes with its clock
    bandwidth = machine.bandwidth_bytes_per_s * min(1.0, CLOCK_OF_MEMORY * machine.clock_ratio)
    return {
        "bytes": work.weight_bytes / bandwidth,
        "count": work.weight_count / (machine.clock_ratio * machine.traits.peak_flops_per_s),
        "kv": work.kv_slowdown * work.kv_bytes / bandwidth,
        "layers": work.layer_count,
    }


def decode_parts(base: Mapping[str, Any], laws: Mapping[str, Any]) -> tuple[Terms, dict[str, Any]]:
    """Seconds by cause, and d ln t / d ln law; numbers or arrays of rows alike."""
    share = capped(laws["efficiency"])
    seen = capped(laws["attention"])
    over = laws["overhead"] * base["layers"]
    by_bytes = base["bytes"] / share
    by_compute = laws["compute"] * base["count"]
    kv = base["kv"] / (seen * share)
    both = (by_bytes**SMOOTHNESS + by_compute**SMOOTHNESS) ** (1 / SMOOTHNESS)
    total = over + both + kv
    # by_compute^S both^(1 - S); the part of a split that has the cache and no weights has 0 of both
    compute = by_compute * (by_compute / (both + _LEAST_S)) ** (SMOOTHNESS - 1)
    slopes = {
        "overhead": over / total,
        "efficiency": -(both - compute + kv) / total * cap_slope(laws["efficiency"]),
        "compute": compute / total,
        "attention": -kv / total * cap_slope(laws["attention"]),
        "scale": total / total,
    }
    s = laws["scale"]
    return Terms(over * s, by_bytes * s, (both - by_bytes) * s, kv * s), slopes


def decode_gradient(work: Work, machine: Machine, values: Mapping[str, float]) -> dict[str, float]:
    """D ln t / d term for each term that applies: the share of the time that it scales."""
    listed = features("decode", work, machine)
    return gradient_of(listed, decode_parts(decode_base(work, machine), laws_of(listed, values))[1])


def decode_seconds(work: Work, machine: Machine, values: Mapping[str, float]) -> Terms:
    """Seconds of one token by cause.

    ``values`` maps a term's key to its logarithm. The time of weights is that of bandwidth alone; what
    dequantisation adds to it is its own part.
    """
    base = decode_base(work, machine)
    parts = decode_parts(base, laws_of(features("decode", work, machine), values))[0]
    # no prediction reads faster than the specification allows
    return parts.times(max(1.0, (base["bytes"] + base["kv"]) / parts.total_s))
