"""How well a training run used its machines, in exact fractions.

FLOPs: 6 N per token (2 forward, 4 backward; N the parameters a token goes through), Kaplan et al. 2020; attention
scores and sums add 12 A s per token, A = layers x heads x head width (where keys and values differ in width, the mean
of both), s the tokens of a sequence; half of it, 6 A s, where causality is credited: half of the square is masked.
Reports differ in this: PaLM counts all of it. MFU: model FLOPs / (peak FLOPs/s x devices x seconds), Chowdhery et al.
2022 (PaLM), appendix B.
"""

from fractions import Fraction
from typing import Any, Final, NamedTuple

from harness.errors import RefusedError

Number = int | Fraction


class Run(NamedTuple):
    """A training run.

    Attributes:
        active_parameter_count: Parameters that one token goes through (of a mixture: those of its experts).
        hours: Wall-clock hours.
        peak_flops_per_s: Dense peak of one accelerator in the precision it trained in.
        parameter_count: All parameters; 0 for a dense model.
        attention_dim: Layers x heads x head width, for attention FLOPs; 0 leaves them out.
        is_causal: Whether only the half of attention below the diagonal counts.
    """

    active_parameter_count: Number
    token_count: Number
    hours: Number
    device_count: Number
    peak_flops_per_s: Number
    parameter_count: Number = 0
    attention_dim: Number = 0
    sequence_tokens: Number = 0
    is_causal: bool = False


class Efficiency(NamedTuple):
    """Exact results."""

    flops_count: Fraction
    attention_flops_count: Fraction
    mfu_ratio: Fraction


def at_rate(tokens_per_s: Number, **fields: Any) -> Run:
    """A run told by its throughput: one hour of it."""
    return Run(token_count=tokens_per_s * 3600, hours=1, **fields)


_A100, _H100, _TPU_V4 = 312 * 10**12, 989 * 10**12, 275 * 10**12

DEEPSEEK_V3: Final = Run(37 * 10**9, 148 * 10**11, 55 * 24, 2048, _H100, 671 * 10**9)
"""As the seed article states it: 37B active of 671B, 14.8T tokens, 55 days on 2,048 H800 (BF16 peak 989 TFLOPS).
Its comment says MFU 0.52; its own formula gives 4278125/12532608 = 0.3414."""

DEEPSEEK_V3_REPORTED: Final = DEEPSEEK_V3._replace(hours=Fraction(2_664_000, 2048))
"""With the pre-training hours its report states (2.664M device hours, arXiv:2412.19437, table 1)."""

_PALM: Final = at_rate(
    238_300, active_parameter_count=540_350_000_000, device_count=6144, peak_flops_per_s=_TPU_V4,
    attention_dim=118 * 48 * 256, sequence_tokens=2048,
)  # fmt: skip
_MT_NLG: Final = at_rate(
    65_430, active_parameter_count=529_600_000_000, device_count=2240, peak_flops_per_s=_A100,
    attention_dim=105 * 128 * 160, sequence_tokens=2048,
)  # fmt: skip
# 61 layers of 128 heads, keys of 128 + 64 and values of 128.
_DEEPSEEK_ATTENTION: Final = DEEPSEEK_V3._replace(
    token_count=272_800_000_000, hours=24, attention_dim=61 * 128 * 160, sequence_tokens=4096
)

PUBLISHED: Final = {
    "PaLM 540B": _PALM,
    "PaLM 540B, attention left out": _PALM._replace(attention_dim=0),
    "PaLM 540B, causal half": _PALM._replace(is_causal=True),
    "MT-NLG 530B": _MT_NLG,
    "MT-NLG 530B, attention left out": _MT_NLG._replace(attention_dim=0),
    # The whole of its pre-training: 15.6T tokens in 30.84M device hours (model card), on up to 16,384 H100.
    "Llama 3 405B": Run(405 * 10**9, 156 * 10**11, Fraction(30_840_000, 16_384), 16_384, _H100),
    "DeepSeek-V3": DEEPSEEK_V3_REPORTED,
    "DeepSeek-V3 with attention": _DEEPSEEK_ATTENTION,
    "DeepSeek-V3 with attention, causal half": _DEEPSEEK_ATTENTION._replace(is_causal=True),
}
"""Runs whose reports say enough. PaLM and MT-NLG: arXiv:2204.02311, table 3 and appendix B; Llama 3: arXiv:2407.21783;
DeepSeek-V3's throughput (272.8B tokens a day): arXiv:2505.09343, table 4."""


def efficiency(run: Run) -> Efficiency:
    """All figures of a run.

    Raises:
        RefusedError: A count, a time or a peak is not positive, or more parameters are active than there are.
    """
    for name in Run._fields[:5]:
        if not getattr(run, name) > 0:
            raise RefusedError(f"{name} must be positive, got {getattr(run, name)}")
    total = run.parameter_count or run.active_parameter_count
    if run.active_parameter_count > total:
        raise RefusedError("more parameters are active than there are")
    part = 6 if run.is_causal else 12
    attention = Fraction(part * run.attention_dim * run.sequence_tokens) * run.token_count
    flops = Fraction(6 * run.active_parameter_count) * run.token_count + attention
    peak = Fraction(run.device_count) * run.peak_flops_per_s * run.hours * 3600
    return Efficiency(flops, attention, flops / peak)
