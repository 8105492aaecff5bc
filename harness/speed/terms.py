"""Terms of the laws: their names, what is believed of them before any row, and how they pool.

A law is log-linear: the logarithm of its value is the sum of its terms. A key such as ``e`` or ``a/year`` is
one physical term. A key with a colon, ``e/family gpu:nvidia-ada``, is a level of the kind before it: levels
of one kind differ by a width that is fitted with them (a random effect), so a kind whose levels are alike
pools them into one. A level that no row has spoken for is 0, known to the width of its kind.
"""

import math
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from harness.core.tables import expect_all, shipped_table
from harness.hardware.traits import first_cells
from harness.speed.work import Machine, Work

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


CAP_SHARPNESS: Final = 8.0
"""How closely a share may come to its limit: at the limit by the law, 0.92 of it are reached. Smooth, so that
a fit has one minimum, whatever it starts from."""


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


def capped(share: Any) -> Any:
    """``share``, a number or an array [rows], with a soft limit of 1: never above it."""
    return share * (1 / (1 + share**CAP_SHARPNESS)) ** (1 / CAP_SHARPNESS)


def cap_slope(share: Any) -> Any:
    """D ln capped / d ln share."""
    return 1 / (1 + share**CAP_SHARPNESS)
