"""How well a training run used its machines, in exact fractions.

FLOPs: 6 N per token (2 forward, 4 backward; N the parameters a token goes through), Kaplan et al. 2020; attention
scores and sums add 12 A s per token, A = layers x heads x head width (where keys and values differ in width, the mean
of both), s the tokens of a sequence; half of it, 6 A s, where causality is credited: half of the square is masked.
Reports differ in this: PaLM counts all of it. MFU: model FLOPs / (peak FLOPs/s x device-seconds), Chowdhery et al. 2022
(PaLM), appendix B.
"""

import csv
from fractions import Fraction
from importlib.resources import files

import msgspec

from harness.domain.base import Frozen


class Run(Frozen, frozen=True, kw_only=True):
    """A training run.

    Attributes:
        active_parameter_count: Parameters that one token goes through (of a mixture: those of its experts).
        device_hours: Hours times accelerators.
        peak_flops_per_s: Dense peak of one accelerator in the precision it trained in.
        attention_dim: Layers x heads x head width, for attention FLOPs; 0 leaves them out.
        is_causal: Whether only the half of attention below the diagonal counts.
    """

    active_parameter_count: int
    token_count: int
    device_hours: int
    peak_flops_per_s: int
    attention_dim: int = 0
    sequence_tokens: int = 0
    is_causal: bool = False

    @property
    def attention_flops_count(self) -> int:
        """FLOPs of scores and their sums."""
        return (6 if self.is_causal else 12) * self.attention_dim * self.sequence_tokens * self.token_count

    @property
    def flops_count(self) -> int:
        """FLOPs of the model."""
        return 6 * self.active_parameter_count * self.token_count + self.attention_flops_count

    @property
    def mfu_ratio(self) -> Fraction:
        """Model FLOPs utilisation."""
        return Fraction(self.flops_count, self.device_hours * 3600 * self.peak_flops_per_s)


def published() -> dict[str, Run]:
    """Runs whose reports say enough, by name; ``published_runs.csv`` names the reports."""
    text = files("harness.workloads.training_efficiency").joinpath("published_runs.csv").read_text("utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return {row.pop("name"): msgspec.convert(row, Run, strict=False) for row in rows}
