"""What a training run cost and how well it used its machines, in exact fractions.

FLOPs: 6 N per token (2 forward, 4 backward; N the parameters a token goes through), Kaplan et al. 2020; attention
scores and sums add 6 L h s per token and layer when causal (12 L h s when not), Narayanan et al. 2021.
MFU: model FLOPs / (peak FLOPs/s x devices x seconds), Chowdhery et al. 2022 (PaLM), appendix B.
"""

from fractions import Fraction
from typing import Final, NamedTuple

from harness.errors import RefusedError

Number = int | Fraction


class Run(NamedTuple):
    """A training run.

    Attributes:
        active_parameter_count: Parameters that one token goes through (of a mixture: those of its experts).
        token_count: Tokens trained on.
        hours: Wall-clock hours.
        device_count: Accelerators.
        peak_flops_per_s: Dense peak of one accelerator in the precision it trained in.
        dollars_per_device_hour: Price.
        parameter_count: All parameters; 0 for a dense model.
        attention_dim: Layers x heads x head width summed, for attention FLOPs; 0 leaves them out.
        sequence_tokens: Tokens of one sequence.
    """

    active_parameter_count: Number
    token_count: Number
    hours: Number
    device_count: Number
    peak_flops_per_s: Number
    dollars_per_device_hour: Number
    parameter_count: Number = 0
    attention_dim: Number = 0
    sequence_tokens: Number = 0


class Efficiency(NamedTuple):
    """Exact results."""

    flops_count: Fraction
    attention_flops_count: Fraction
    mfu_ratio: Fraction
    cost_dollars: Fraction
    tokens_per_dollar: Fraction
    flops_per_dollar: Fraction
    active_ratio: Fraction


DEEPSEEK_V3: Final = Run(37 * 10**9, 148 * 10**11, 55 * 24, 2048, 989 * 10**12, 2, 671 * 10**9)
"""As the seed article states it: 37B active of 671B, 14.8T tokens, 55 days on 2,048 H800 (BF16 peak 989 TFLOPS, $2).
Its comment says MFU 0.52 and $5.3M; its own formula gives 4278125/12532608 = 0.3414 and $5,406,720."""

DEEPSEEK_V3_REPORTED: Final = DEEPSEEK_V3._replace(hours=Fraction(2_664_000, 2048))
"""With the pre-training hours its report states (2.664M device hours, arXiv:2412.19437, table 1)."""


def efficiency(run: Run) -> Efficiency:
    """All figures of a run.

    Raises:
        RefusedError: A count, a time, a peak or a price is not positive, or more parameters are active than there are.
    """
    for name in Run._fields[:6]:
        if not getattr(run, name) > 0:
            raise RefusedError(f"{name} must be positive, got {getattr(run, name)}")
    total = run.parameter_count or run.active_parameter_count
    if run.active_parameter_count > total:
        raise RefusedError("more parameters are active than there are")
    attention = Fraction(6 * run.attention_dim * run.sequence_tokens) * run.token_count
    flops = Fraction(6 * run.active_parameter_count) * run.token_count + attention
    peak = Fraction(run.device_count) * run.peak_flops_per_s * run.hours * 3600
    cost = Fraction(run.device_count) * run.hours * run.dollars_per_device_hour
    return Efficiency(
        flops_count=flops,
        attention_flops_count=attention,
        mfu_ratio=flops / peak,
        cost_dollars=cost,
        tokens_per_dollar=run.token_count / cost,
        flops_per_dollar=flops / cost,
        active_ratio=Fraction(run.active_parameter_count) / total,
    )


def hours_for(run: Run, mfu_ratio: Number) -> Fraction:
    """Hours the run would take at that MFU."""
    done = efficiency(run)
    return done.mfu_ratio / Fraction(mfu_ratio) * run.hours
