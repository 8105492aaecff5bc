"""Time of one step of several sequences decoded together: the weights are read once, computed with for each.

    t(B) = t_o + (t_w^p + t_c(B)^p)^(1/p) + B t_k,    t_c(B) = (B - 1) 2 N / (m(B) P)          [s]

B: sequences; t_o, t_w, t_k: overhead, weights and cache of one sequence by the law of decode (``decode.py``); t_c:
arithmetic of the weights beyond the first sequence's, N of them (the output's too: each sequence has its own token), at
the share m of the peak P that a prompt of B tokens reaches (``prefill.py``); p = 3 as in decode. For B = 1 it is the
law of decode.

Source of the form: roofline of batched decode (Pope et al. 2022, "Efficiently Scaling Transformer Inference", section
2); its two ends are fitted on one sequence and on prompts, nothing on published batches (of a loss of B^z against a
prompt, six of seven fits without one chip chose z = 0).
"""

from collections.abc import Mapping
from typing import Final

from harness.predict.decode import SMOOTHNESS, Machine, Work, capped, decode_seconds
from harness.predict.prefill import INT8_RATIO, Prompt, prefill_base, prefill_features
from harness.predict.terms import laws_of

SPREAD_BY_LN: Final = (-0.24, 0.20)
"""5 % and 95 % quantiles of ln(measured / predicted) / ln B, where the speed of one sequence was known."""


def batch_step_s(work: Work, machine: Machine, sequence_count: int, values: Mapping[str, float]) -> float:
    """Seconds in which ``sequence_count`` (B, from 1 on) sequences get one token each; ``work`` is that of one."""
    one = decode_seconds(work, machine, values)
    if sequence_count == 1:
        return one.total_s
    prompt = Prompt(sequence_count, 0.0)
    laws = laws_of(prefill_features(work, machine, prompt), values)
    rate = INT8_RATIO * capped(laws["mfu"] / INT8_RATIO)
    # a mixture's output is small beside its experts, and its count of a prompt holds every expert that a token uses
    output = work.weight_count / work.prompt_weight_count if work.prompt_weight_count and not work.moe else 1.0
    whole = prefill_base(work, machine, prompt)["weights"] * output / rate * laws["scale"]
    compute_s = whole * (sequence_count - 1) / sequence_count
    weights_s = one.weights_s + one.dequantisation_s
    both = (weights_s**SMOOTHNESS + compute_s**SMOOTHNESS) ** (1 / SMOOTHNESS)
    return float(one.overhead_s + both + sequence_count * one.kv_s)
