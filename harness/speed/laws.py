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

Terms of the laws: their names, what is believed of them before any row, and how they pool.

A law is log-linear: the logarithm of its value is the sum of its terms. A key such as ``e`` or ``a/year`` is
one physical term. A key with a colon, ``e/family gpu:nvidia-ada``, is a level of the kind before it: levels
of one kind differ by a width that is fitted with them (a random effect), so a kind whose levels are alike
pools them into one. A level that no row has spoken for is 0, known to the width of its kind.

Time of a prompt: arithmetic against the matrix peak, the attention's apart from that of the weights.

    t(n) = g (o b L / 32 + n 2 N / (m P) + A / (h m P) + b B / W) (1 + (b - 1) / d) / b,   b = max(n / u, 1)       [s]

o: fixed cost of 32 layers for a batch; L: layers; b: batches of u tokens (llama.cpp's ubatch); n: prompt
tokens; N: weights a token goes through, the output's not among them; P: fp16 matrix peak (FLOP/s), on a CPU
of the threads that run; m: share of it that is reached, a product of factors by api, family, class of
quantisation, kernels that there are, size of the prompt and of the peak; A: FLOP of the attention, which
reaches h of what the weights do; B: bytes of all weights, all experts among them, which every batch reads; W:
bandwidth; g: what a chip, a runtime or a model takes beyond all of it; d: cards that each have a part of the
layers, at most four, as batches follow one another through them (ggml-backend.cpp, pipeline parallelism).
"""

import math
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, NamedTuple

from harness.core.model import ModelShape
from harness.core.tables import expect_all, shipped_table
from harness.hardware.traits import Traits, first_cells
from harness.models.architecture import has

Term = tuple[str, float]
Features = dict[str, tuple[Term, ...]]
"""Terms that apply, by law: key and factor."""

MEANS: Final = {
    "a": math.log(60e-6),
    "a/cpu": math.log(20e-6),
    "e": math.log(0.75),
    "e/cpu": math.log(0.55),
    "e/npu": math.log(0.3),
    "e/bandwidth/npu": -0.5,
    "c": math.log(8.0),
    "k": math.log(0.7),
    "m": math.log(0.35),
    "m/cpu": math.log(0.1),
    "h": -1.0,
    "h/year": 0.9,
    "o": math.log(3e-3),
    "a/moe": math.log(2.0),
    "a/recurrent": math.log(2.0),
}
"""Physics, or what is known of an engine: a kernel launch takes some microseconds, a memory system delivers
most of its specification, dequantising a weight takes about ten operations, attention over a prompt was slow
before flash attention became the default in 2025. A router with its experts, or a convolution with a gated
state, has about as many kernels again as a plain layer (llama.cpp, src/llama-graph.cpp and src/models). The
value of ``e`` stands for ``e/gpu`` and ``e/npu`` too."""

SIDES: Final = ("cpu", "gpu", "npu")
WIDTHS: Final = {"e": 0.3, "k": 0.5, "h": 0.5, "e/moe": 0.3}
"""Of physical terms whose size is known better than within a factor two."""
SLOPE_WIDTH: Final = 0.25
"""Of an exponent: speed as a power of bandwidth, threads, peak, size or length of the prompt; or of a trend
by year."""
SLOPES: Final = {"bandwidth", "threads", "peak", "share", "size", "short", "long", "year", "ratio"}
TERM_WIDTH: Final = 0.7
LEVEL_WIDTH: Final = 0.25
"""Of a kind that no fit has met."""


def kind_of(key: str) -> str:
    """The kind that a level belongs to; empty for a physical term."""
    kind, colon, _ = key.partition(":")
    if colon:
        return kind
    return ""


def prior_of(key: str, widths: Mapping[str, float] = {}) -> tuple[float, float]:
    """Mean and width of a term before any row; ``widths`` are the fitted ones, by kind."""
    kind, colon, _ = key.partition(":")
    if colon:
        return 0.0, widths.get(kind, LEVEL_WIDTH)
    law, _, rest = key.partition("/")
    if rest in SIDES:
        base = law
    else:
        base = key
    if not SLOPES.isdisjoint(rest.split("/")):
        width = SLOPE_WIDTH
    else:
        width = WIDTHS.get(base, TERM_WIDTH)
    return MEANS.get(key, MEANS.get(base, 0.0)), width


def laws_of(listed: Features, values: Mapping[str, float]) -> dict[str, float]:
    """Value of each law: exp of the sum of its terms; a term without a value has its prior's mean."""
    return {
        law: math.exp(sum((values[key] if key in values else prior_of(key)[0]) * x for key, x in terms))
        for law, terms in listed.items()
    }


def gradient_of(listed: Features, slopes: Mapping[str, float]) -> dict[str, float]:
    """D ln t / d term, from d ln t / d ln law."""
    found: dict[str, float] = {}
    for law, terms in listed.items():
        for key, x in terms:
            found[key] = found.get(key, 0.0) + slopes[law] * x
    return found


SMOOTHNESS: Final = 3.0
"""p above."""

CAP_SHARPNESS: Final = 8.0
"""How closely a share may come to its limit: at the limit by the law, 0.92 of it are reached. Smooth, so that
a fit has one minimum, whatever it starts from."""

CLOCK_OF_MEMORY: Final = 1.7
"""Share of its bandwidth that a chip can ask for, over its share of its clock: a 3090 decodes at 0.94 of its
speed at 0.59 of its clock, and at 0.17 at 0.14; a 4090 at 0.80 at 0.48 (power.csv, and two more limits of a
3090)."""

REFERENCE_YEAR: Final = 2025.0
CURRENT_YEAR: Final = 2026.7
"""Build year assumed for a question about today's engine: no further than rows go."""

BELOW_FOUR_BITS: Final = ("q3k", "q2k", "iq", "ternary", "w2", "w3")
"""Classes of quantisation."""


class Work(NamedTuple):
    """What one decoded token needs.

    Attributes:
        weight_bytes: Weight bytes read for one token.
        weight_count: Weights read for one token.
        layer_count: Transformer blocks.
        kv_bytes: KV bytes read at the mean depth.
        quant_class: ``f16 q8 q5 q4 q4k q3k q2k iq ternary``.
        moe: Whether experts are routed.
        prompt_weight_count: Weights that a token of a prompt goes through; 0: as many as one decoded token
            reads.
        prompt_bytes: Weight bytes that a batch of a prompt reads, every expert among them; 0: as many as one
            token.
        type_name: The quantisation itself, such as ``Q4_K_M``.
        model: Name of the model; empty where nobody measured it.
        recurrent_ratio: Share of the layers that keep a state (Mamba, gated delta rule).
        expert_ratio: Used / all routed experts; 1 without, or where unknown.
        kv_slowdown: Time of attention over that of its fused kernel; 1 for the fused one.
    """

    weight_bytes: float
    weight_count: float
    layer_count: float
    kv_bytes: float
    quant_class: str
    moe: bool = False
    prompt_weight_count: float = 0.0
    prompt_bytes: float = 0.0
    type_name: str = ""
    model: str = ""
    recurrent_ratio: float = 0.0
    expert_ratio: float = 1.0
    kv_slowdown: float = 1.0

    @property
    def log_share(self) -> float:
        """Ln of the share of a mixture's bytes that one token reads, over a tenth.

        It is 0 for a model without experts, or where the share is unknown.
        """
        if not self.moe or not self.prompt_bytes:
            return 0.0
        return math.log(10 * self.weight_bytes / max(self.prompt_bytes, self.weight_bytes))

    @property
    def kind(self) -> str:
        """``experts``, ``below four bits`` or ``dense``."""
        if self.moe:
            return "experts"
        if self.quant_class in BELOW_FOUR_BITS:
            return "below four bits"
        return "dense"


class Machine(NamedTuple):
    """What runs it.

    Attributes:
        api: llama.cpp-class api; anything else counts as an unknown one.
        bandwidth_bytes_per_s: Of the specification.
        traits: Family and peaks.
        phone: Phone or tablet: it shares its power with nothing and throttles early.
        runtime: ``llama.cpp`` or another runtime's first word.
        build_year: Year of the engine's build.
        chip: Canonical name of the silicon.
        clock_ratio: Clock under a limit of power, over that without one.
    """

    api: str
    bandwidth_bytes_per_s: float
    traits: Traits
    phone: bool = False
    runtime: str = "llama.cpp"
    build_year: float = CURRENT_YEAR
    chip: str = ""
    clock_ratio: float = 1.0

    @property
    def side(self) -> str:
        """``cpu``, ``npu`` or ``gpu``."""
        if self.api in {"cpu", "npu"}:
            return self.api
        return "gpu"

    @property
    def hardware(self) -> str:
        """Class of hardware whose measurements scatter alike."""
        if self.api == "npu":
            return "NPU"
        if self.phone:
            return "phone CPU" if self.api == "cpu" else "phone GPU"
        family = self.traits.family
        if self.api == "cpu":
            if family.endswith(("server-cpu", "neoverse-cpu")):
                return "server CPU"
            return "desktop CPU"
        vendors = (("apple", "Apple GPU"), ("nvidia", "NVIDIA"), ("amd", "AMD"), ("intel", "Intel"))
        return next((name for start, name in vendors if family.startswith(start)), "other GPU")

    @property
    def year(self) -> float:
        """Years of the build since ``REFERENCE_YEAR``, no further than rows go."""
        return min(max(self.build_year, 2023.0), CURRENT_YEAR) - REFERENCE_YEAR

    @property
    def other_runtime(self) -> str:
        """The runtime, unless it is llama.cpp."""
        if self.runtime == "llama.cpp":
            return ""
        return self.runtime


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


NAMES: Final = frozenset({
    "side", "api", "quant", "family", "any_family", "gpu_vendor", "gpu_memory", "isa", "ggml_isa", "chip", "runtime",
    "type", "model",
})  # fmt: skip
"""Names that keys of terms may hold in braces: what :func:`names_of` finds."""
FACTORS: Final = frozenset({
    "one", "year", "cpu threads", "bandwidth", "experts", "experts' share", "experts' ratio", "recurrent", "phone", "kernel",
    "brain floats", "peak", "matrix units", "size", "short", "long",
})  # fmt: skip
"""Factors that terms may have: what :func:`factors_of` finds."""
_LAWS: Final = {
    "decode": ("overhead", "efficiency", "compute", "attention", "scale"),
    "prefill": ("mfu", "attention", "overhead", "scale"),
}


@cache
def _named(key: str) -> tuple[str, ...]:
    """The names in braces of a term's key."""
    return tuple(re.findall(r"\{(.*?)\}", key))


def read_terms() -> dict[str, dict[str, dict[str, str]]]:
    """``data/terms.toml``, by phase and law: key of a term, and its factor.

    Raises:
        BadDataError: A phase, a law, a name in braces or a factor that is not declared.
    """
    path = "data/terms.toml"
    document = shipped_table(path, "harness.speed", into=dict[str, dict[str, dict[str, str]]])
    expect_all(path, "phase", ((phase, phase) for phase in document), _LAWS)
    for phase, laws in document.items():
        expect_all(path, phase, ((law, law) for law in laws), _LAWS[phase])
        for law, terms in laws.items():
            named = ((key, name) for key in terms for name in _named(key))
            expect_all(path, f"{phase}.{law}, condition", named, NAMES)
            expect_all(path, f"{phase}.{law}, factor", terms, FACTORS)
    return document


_TERMS: Final = read_terms()


def features(phase: str, work: Work, machine: Machine, prompt_tokens: float = 512.0) -> Features:
    """Which terms apply to a ``decode`` or a ``prefill``, by law, as ``data/terms.toml`` lists them.

    A term is left out if the machine or the model has none of one of its names, or not its factor.
    """
    names = names_of(work, machine)
    factors = factors_of(work, machine, prompt_tokens)
    listed: Features = {}
    for law, terms in _TERMS[phase].items():
        applying = []
        for key, factor in terms.items():
            value = factors[factor]
            if value is not None and all(name in names for name in _named(key)):
                applying.append((key.format_map(names), value))
        listed[law] = tuple(applying)
    return listed


def names_of(work: Work, machine: Machine) -> dict[str, str]:
    """Words for the names that keys of terms hold; without those that this machine or model does not have."""
    traits = machine.traits
    on_gpu = machine.side == "gpu"
    names = {
        "side": machine.side,
        "api": machine.api,
        "quant": work.quant_class,
        "family": traits.family or None,
        "any_family": traits.family,
        "gpu_vendor": (on_gpu and traits.vendor) or None,
        "gpu_memory": (on_gpu and traits.memory) or None,
        "isa": traits.isa or None,
        # The instructions that ggml's own kernels use; other engines bring theirs.
        "ggml_isa": (not machine.other_runtime and traits.isa) or None,
        "chip": machine.chip or None,
        "runtime": machine.other_runtime or None,
        "type": work.type_name or None,
        "model": work.model or None,
    }
    return {name: word for name, word in names.items() if word is not None}


def factors_of(work: Work, machine: Machine, prompt_tokens: float = 512.0) -> dict[str, float | None]:
    """Values of the factors of terms; None for one that this machine or model does not have."""
    traits = machine.traits
    bandwidth = machine.bandwidth_bytes_per_s
    side = machine.side
    is_cpu = side == "cpu"
    on_gpu = side == "gpu"
    threads = max(traits.core_count, 1)
    experts = None
    if work.moe:
        experts = 1.0
    size = max(work.prompt_weight_count or work.weight_count, 1e8)
    # A kernel of its own that llama.cpp of that year multiplies matrices in this type by (data/kernels.csv).
    kernel = None
    if not machine.other_runtime:
        key = f"{machine.api} {traits.isa or traits.vendor} {work.type_name.lower()}"
        cells = first_cells("kernels", key)
        if cells and machine.build_year >= float(cells[0]):
            kernel = 1.0
    return {
        "one": 1.0,
        "year": machine.year,
        "cpu threads": math.log(threads / 8) if is_cpu else None,
        "bandwidth": math.log(bandwidth / (6e10 if is_cpu else 4e11)),
        "experts": experts,
        "experts' share": experts and work.log_share,
        "experts' ratio": experts and math.log(16 * work.expert_ratio),
        "recurrent": work.recurrent_ratio or None,
        "phone": 1.0 if machine.phone else None,
        "kernel": kernel,
        "brain floats": 1.0 if work.type_name == "BF16" else None,
        "peak": math.log(traits.matrix_flops_per_s / 5e13),
        "matrix units": math.log(traits.matrix_flops_per_s / traits.peak_flops_per_s / 4) if on_gpu else None,
        "size": math.log(size / 7e9),
        "short": math.log(min(max(prompt_tokens, 1.0), 512.0) / 512.0),
        "long": math.log(max(prompt_tokens, 512.0) / 512.0),
    }


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


def capped(share: Any) -> Any:
    """``share``, a number or an array [rows], with a soft limit of 1: never above it."""
    return share * (1 / (1 + share**CAP_SHARPNESS)) ** (1 / CAP_SHARPNESS)


def cap_slope(share: Any) -> Any:
    """D ln capped / d ln share."""
    return 1 / (1 + share**CAP_SHARPNESS)


def decode_seconds(work: Work, machine: Machine, values: Mapping[str, float]) -> Terms:
    """Seconds of one token by cause.

    ``values`` maps a term's key to its logarithm. The time of weights is that of bandwidth alone; what
    dequantisation adds to it is its own part.
    """
    base = decode_base(work, machine)
    parts = decode_parts(base, laws_of(features("decode", work, machine), values))[0]
    # no prediction reads faster than the specification allows
    return parts.times(max(1.0, (base["bytes"] + base["kv"]) / parts.total_s))


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
