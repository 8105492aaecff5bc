"""What the laws of speed are asked: the work of a token, and the machine that does it."""

import math
from typing import Final, NamedTuple

from harness.hardware.traits import Traits

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
