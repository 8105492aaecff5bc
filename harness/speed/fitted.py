"""Costs of an engine by the laws that were fitted on published rows.

One token takes what ``decode.py`` says, a prompt what ``prefill.py`` says. A pass of few tokens between them,
of several users or of drafts that are verified, reads its weights once and computes with them for each token:

    CPU, NPU:  t(n) = t_o + ((u(n) t_w)^p + t_c(n)^p)^(1/p) + s t_k,    t_c(n) = (n - 1) 2 N / (m(n) P)    [s]
    GPU:       t(n) = t_o + u(n) t_w + (n - 1) 2 N / (f P_s) + s t_k                                        [s]

n: tokens; s: sequences; t_o, t_w, t_k: overhead, weights and cache of one token by the law of decode; t_c:
arithmetic of the weights beyond the first token's, N of them (the output's too: each token has its own), at
the share m of the peak that a prompt of n tokens reaches; p = 3 as in decode; u: bytes of the experts that
any of n tokens wants over those of one, (r + R (1 - (1 - k / E)^n)) / (r + R k / E) for R bytes in E experts
of which k are used, and r others; P_s: peak of a GPU's shaders, f: the share of it that kernels for few
tokens reach (they multiply there, and not in matrix units). Where an api leaves such kernels at some n, the
slower of both from there on. For n = 1 it is the law of decode.

Source of the form: roofline of batched decode (Pope et al. 2022, "Efficiently Scaling Transformer Inference",
section 2); its two ends are fitted on one sequence and on prompts.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from harness.core.device import ComputeEngine, Device
from harness.core.model import Weights
from harness.core.placement import OFFLOAD_TOKENS
from harness.core.prediction import Evidence
from harness.core.program import program_named
from harness.core.scenario import Scenario
from harness.hardware.traits import PHONE_THREADS, Traits, chip_key, quant_class, shader_peak, traits_of
from harness.memory.kv_cache import kv_read_bytes, recurrent_ratio
from harness.models.weights import read_of
from harness.speed.coefficients import Coefficients
from harness.speed.decode import SMOOTHNESS, Terms, decode_gradient, decode_seconds
from harness.speed.passes import Part, Pass, together
from harness.speed.prefill import INT8_RATIO, Prompt, prefill_base, prefill_gradient, prefill_seconds
from harness.speed.terms import capped, features, laws_of
from harness.speed.work import Machine, Work

SPREAD_BY_LN: Final = 0.2
"""What ln n adds to how far ln(speed) of n tokens together may lie off: of published batches nine of ten lie
inside so, and a wider or a narrower interval has a worse score."""

SPREAD_BY_CLOCK: Final = 0.35
"""The same by ln of the clock that a limit of power leaves: published sweeps (power.csv) of the same share of
power differ by so much, as some kernels draw more than others."""

UNMEASURED_SPREAD: Final = 0.7
"""The same of what nobody measured, no chip of its family or none by its api: 95 of 100 votes of families that
were left out are missed by less (``bench validation --by family``), and it is no sure figure."""

UNFUSED_RATIO: Final = 3.4
"""Attention of a decoded token on a GPU without flash attention over that with it: 35.7 and 59.9 ms a token with 22,000
tokens in the cache of an M3 Ultra (ggml-org/llama.cpp issue 13373), where the cache takes 10 ms with it. On CPUs published
pairs lie from 0.9 to 1.4 of it at 512 to 16,384 tokens (decode.csv): 1 is taken."""

_FEW_SHARES: Final = {"vulkan": 0.2, "metal": 0.25}
"""f of kernels for few tokens by api, as published batches (batch.csv) and drafts (spec_decode.csv) ask for."""
_FEW_SHARE: Final = 0.5
"""The same of any other GPU, and of Metal for weights that need no unpacking."""
_FEW_TOKENS: Final = {"cuda": 16, "rocm": 16}
"""Tokens up to which such kernels run; beyond them those of prompts do (llama.cpp, ggml-cuda: MMVQ and MMQ)."""
_APART: Final = frozenset({"vulkan"})
"""Apis whose kernels read the experts of each token for themselves."""


def few_share(api: str, quant: str) -> float:
    """f: what kernels for few tokens reach of the shaders' peak, with weights of this class of quantisation."""
    if api == "metal" and quant == "f16":
        return _FEW_SHARE
    return _FEW_SHARES.get(api, _FEW_SHARE)


class Fitted(NamedTuple):
    """An engine as the fitted laws see it.

    ``doubt`` is the spread, in ln, that its bandwidth adds by its evidence.
    """

    machine: Machine
    belief: Coefficients
    doubt: float = 0.0

    def reading_bytes_per_s(self, _size: float) -> float:
        """That of the specification."""
        return self.machine.bandwidth_bytes_per_s

    def seconds(self, parts: Sequence[Part], asked: Pass) -> Terms:
        """Seconds of these parts, together, by cause."""
        part = together(parts)
        work = part.work
        values = self.belief.values
        if asked.token_count == 1:
            return decode_seconds(work, self.machine, values)
        if not asked.is_prompt:
            return few_tokens(work, self.machine, asked, values)
        if not work.weight_bytes and not part.attention_flops:
            return Terms()  # a cache alone, which a prompt only writes
        prompt_s = prefill_seconds(work, self.machine, _prompt_of(part, asked), values)
        if work.moe:  # by published batches the law of prompts is too fast for the fewest tokens of mixtures
            few = Pass(OFFLOAD_TOKENS - 1, asked.depth_tokens)
            prompt_s = max(prompt_s, few_tokens(work, self.machine, few, values).total_s)
        return Terms(weights_s=asked.sequences * prompt_s)

    def spread(self, part: Part, asked: Pass) -> tuple[float, float]:
        """How far ln(time) may lie above and below."""
        own = self.belief.half_width(self.gradient(part, asked), asked.phase, part.work, self.machine)
        if not asked.is_prompt:
            own = math.hypot(own, self.doubt, SPREAD_BY_LN * math.log(asked.token_count))
        own = math.hypot(own, SPREAD_BY_CLOCK * math.log(self.machine.clock_ratio))
        if self.evidence(asked).is_unmeasured:
            own = math.hypot(own, UNMEASURED_SPREAD)
        return own, own

    def evidence(self, asked: Pass) -> Evidence:
        """Who measured what such a pass is predicted from."""
        return self.belief.evidence(asked.phase, self.machine)

    def gradient(self, part: Part, asked: Pass) -> dict[str, float]:
        """D ln t / d term of a whole model; of few tokens that of one."""
        if asked.is_prompt:
            return prefill_gradient(part.work, self.machine, _prompt_of(part, asked), self.belief.values)
        return decode_gradient(part.work, self.machine, self.belief.values)


def _prompt_of(part: Part, asked: Pass) -> Prompt:
    return Prompt(asked.tokens, part.attention_flops, batch_tokens=asked.ubatch_tokens)


def few_tokens(work: Work, machine: Machine, asked: Pass, values: Mapping[str, float]) -> Terms:
    """Seconds by cause of a pass of few tokens, or of one token of each of many sequences."""
    one = decode_seconds(work, machine, values)
    count = asked.token_count
    prompt = Prompt(count, 0.0)
    laws = laws_of(features("prefill", work, machine, count), values)
    rate = INT8_RATIO * capped(laws["mfu"] / INT8_RATIO)
    # a mixture's output is small beside its experts, and its count of a prompt holds every expert that a
    # token uses
    if work.prompt_weight_count and not work.moe:
        output = work.weight_count / work.prompt_weight_count
    else:
        output = 1.0
    compute_s = (
        prefill_base(work, machine, prompt)["weights"] * output / rate * laws["scale"] * (count - 1) / count
    )
    read_s = (one.weights_s + one.dequantisation_s) * experts_read_ratio(
        work, count, apart=machine.api in _APART
    )
    both_s = float((read_s**SMOOTHNESS + compute_s**SMOOTHNESS) ** (1 / SMOOTHNESS))
    if machine.side == "gpu":
        rate = (
            few_share(machine.api, work.quant_class) * machine.clock_ratio * machine.traits.peak_flops_per_s
        )
        few = min(count, _FEW_TOKENS.get(machine.api, count))
        few_s = read_s + (few - 1) * 2 * work.weight_count / rate
        if few < count:
            both_s = max(few_s, both_s)
        else:
            both_s = few_s
    # one after another is always possible, and for a dense model as a prompt; nothing is faster than one
    # token
    one_s = one.weights_s + one.dequantisation_s
    most_s = count * one_s
    if not work.moe:
        as_prompt = Prompt(max(count, OFFLOAD_TOKENS), 0.0)
        most_s = min(most_s, prefill_seconds(work, machine, as_prompt, values) - one.overhead_s)
    both_s = max(min(both_s, most_s), one_s)
    read_s = min(read_s, both_s)
    return Terms(one.overhead_s, read_s, both_s - read_s, asked.sequences * one.kv_s)


def experts_read_ratio(work: Work, tokens: int, *, apart: bool = False) -> float:
    """Bytes of weights that a pass over so many tokens reads, over those of one token; 1 for a dense model.

    ``apart``: the experts of each token are read for it alone.
    """
    if not work.moe or work.expert_ratio >= 1 or work.prompt_bytes <= work.weight_bytes:
        return 1.0
    used = work.expert_ratio
    routed_bytes = (work.prompt_bytes - work.weight_bytes) / (1 - used)
    if apart:
        wanted = tokens * used
    else:
        wanted = 1 - (1 - used) ** tokens
    return 1 + routed_bytes * (wanted - used) / work.weight_bytes


def machine_of(device: Device, scenario: Scenario) -> Machine:
    """The engine of ``device`` that the scenario's api runs on, as the laws see it."""
    api = device.api(scenario.api)
    engine = device.engine_for(api)
    pool = device.pool_of(api)
    bandwidth = pool.bandwidth_bytes_per_s.value
    phone = device.kind in {"phone", "tablet"}
    chip = name = device.chip
    clock_ratio = 1.0
    if engine is not None:
        clock_ratio = engine.clock_ratio
        if engine.kind == "cpu":  # by its own name, without the graphics in brackets
            chip = chip.partition("(")[0]
        else:
            name = f"{chip} {engine.name}"
        if pool.is_own:
            chip = engine.name
    traits = traits_of(name, api, bandwidth, scenario.thread_count or PHONE_THREADS * phone)
    if engine is not None and api != "cpu":
        traits = _with_peaks(traits, engine)
    program = program_named(scenario.program).name
    return Machine(
        api,
        bandwidth,
        traits,
        phone=phone,
        chip=chip_key(chip),
        clock_ratio=clock_ratio,
        runtime=_RUNTIMES.get(program, "llama.cpp"),
    )


_RUNTIMES: Final = {
    "mlx": "mlx-lm",
    "ollama": "ollama",
    "lm-studio": "lm-studio",
    "koboldcpp": "koboldcpp",
    "ik-llama-cpp-python": "ik",
    "vllm": "vllm",
    "mlc-llm": "mlc-llm",
}
"""Programs whose published speeds differ from llama.cpp's, by the runtime that their rows name."""


def _with_peaks(traits: Traits, engine: ComputeEngine) -> Traits:
    """Traits with the peaks that a profile tells, where the table knows none.

    The laws were fitted with the table's: data sheets count fp16 by one of two rates of accumulation.
    """
    peaks = engine.peak_flops_per_s
    shader = peaks.get("fp32") or peaks.get("fp16")
    matrix = peaks.get("fp16") or peaks.get("fp32")
    if traits.known_peak or shader is None or matrix is None:
        return traits
    peak = shader_peak(traits.family, shader.value, traits.memory)
    return traits._replace(peak_flops_per_s=peak, matrix_flops_per_s=matrix.value, known_peak=True)


def fitted_costs(device: Device, scenario: Scenario, api: str, belief: Coefficients) -> Fitted:
    """The costs of one engine of a device: a bandwidth adds no spread if verified, 5 % recalled, 15 % assumed."""
    confidence = device.pool_of(api).bandwidth_bytes_per_s.confidence
    doubt = {"from_memory": 0.05, "assumed": 0.15}.get(confidence, 0.0)
    return Fitted(machine_of(device, scenario.replace(api=api)), belief, doubt)


def work_of(weights: Weights, scenario: Scenario, depth_tokens: float) -> Work:
    """What one decoded token reads of weights (``weights.read_of``) and of the cache."""
    shape = weights.shape
    read = read_of(weights)
    prompt_bytes = read.size_bytes
    if shape.experts is not None:
        prompt_bytes = read.total_bytes
    return Work(
        read.size_bytes,
        read.weight_count,
        shape.layer_count,
        kv_read_bytes(shape, round(depth_tokens), scenario.kv_type),
        quant_class(weights.quant),
        shape.experts is not None,
        read.prompt_weight_count,
        prompt_bytes=prompt_bytes,
        type_name=weights.quant,
        recurrent_ratio=recurrent_ratio(shape),
        expert_ratio=shape.expert_ratio,
        kv_slowdown=1.0 if scenario.flash_attention or scenario.api in {"", "cpu"} else UNFUSED_RATIO,
    )
