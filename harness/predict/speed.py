"""Speed of one model on one device in one scenario, with intervals: the two laws, loading, and what limits."""

import math
from typing import Final

from msgspec.structs import replace

from harness.domain.device import DeviceProfile
from harness.domain.ggml import BLOCKS
from harness.domain.model import Weights
from harness.domain.prediction import Interval, SpeedPrediction
from harness.domain.scenario import Scenario
from harness.predict.batch import SPREAD_BY_LN, batch_step_s
from harness.predict.coefficients import Coefficients
from harness.predict.decode import Machine, Work, decode_gradient, decode_seconds
from harness.predict.interval import UNSETTLED_RATIO, combined, interval
from harness.predict.kv_cache import kv_read_bytes, recurrent_ratio
from harness.predict.learned import believed
from harness.predict.prefill import prefill_gradient, prefill_seconds, prompt_of
from harness.predict.quant_class import quant_class
from harness.predict.traits import chip_key, shader_peak, traits_of
from harness.predict.weights import read_of

PAGE_CACHE_BYTES_PER_S: Final = 5e9
"""Reading a file that is in the page cache, one thread: of the order of a memory copy. No measurement of the device."""
LOAD_OVERHEAD_S: Final = 0.3
"""Header, vocabulary, buffers: what a load costs beside its bytes (llama.cpp, vocabulary of 150k entries)."""
_LOAD_SPREAD: Final = 0.45
"""ln of storage as read by a loader over its data sheet: within a factor 1.6."""


def predict_speed(weights: Weights, device: DeviceProfile, scenario: Scenario) -> SpeedPrediction:
    """Speed of ``weights`` on ``device``.

    A device that was probed answers from its own calibration; any other from the coefficients fitted on published rows.
    """
    if (calibration := device.calibration(device.api(scenario.api))) is not None:
        from harness.predict.calibrated import calibrated_speed

        return calibrated_speed(weights, calibration, device, scenario)
    return fitted_speed(weights, device, scenario, believed(device))


def closed_loop_tokens_per_s(weights: Weights, device: DeviceProfile, scenario: Scenario) -> float:
    """New tokens a second where ``batch_count`` users each send their next request when the last one ended.

        X = n / (P / R_p + n / R_d(B))

    Of B sequences each has its prompt of P tokens read alone, at R_p tokens/s; then all make n tokens together, at
    R_d(B) tokens/s of all: B n tokens in B P / R_p + B n / R_d(B) seconds. That is the bound of one engine that is
    never idle (Lazowska et al. 1984, "Quantitative System Performance", chapter 5). The scenario's depth is what the
    prompts share, and is in the cache.
    """
    alone = predict_speed(weights, device, replace(scenario, batch_count=1))
    after = replace(scenario, depth_tokens=scenario.depth_tokens + scenario.prompt_tokens)
    together = predict_speed(weights, device, after)
    prompt_s = scenario.prompt_tokens / alone.prefill_tokens_per_s.mid
    return scenario.new_tokens / (prompt_s + scenario.new_tokens / together.decode_tokens_per_s.mid)


def fitted_speed(
    weights: Weights, device: DeviceProfile, scenario: Scenario, coefficients: Coefficients
) -> SpeedPrediction:
    """Speed by the fitted laws, whatever was measured on the device.

    Rates of several sequences are those of all of them together; the first token is that of the last of them.
    """
    machine = machine_of(device, scenario)
    work = work_of(weights, scenario, scenario.depth_tokens + scenario.new_tokens / 2)
    values = coefficients.values
    terms = decode_seconds(work, machine, values)
    gradient = decode_gradient(work, machine, values)
    ceiling = machine.bandwidth_bytes_per_s / (work.weight_bytes + work.kv_bytes)
    mid, doubt = min(1 / terms.total_s, ceiling), _doubt(device, machine.api)
    decode = _below(interval(mid, coefficients.half_width(gradient, "decode", work, machine), doubt), ceiling)
    together = scenario.batch_count
    if together > 1:
        ceiling = together * machine.bandwidth_bytes_per_s / (work.weight_bytes + together * work.kv_bytes)
        mid = min(together / batch_step_s(work, machine, together, values), ceiling)
        low, high = (mid * together**each for each in SPREAD_BY_LN)
        decode = _below(combined(mid, (low, high), decode), ceiling)
    prompt = prompt_of(weights.shape, max(scenario.prompt_tokens, 1), scenario.depth_tokens)
    prompt_s = prefill_seconds(work, machine, prompt, values)
    prompt_s = max(prompt_s, work.weight_bytes / machine.bandwidth_bytes_per_s)
    slopes = prefill_gradient(work, machine, prompt, values)
    mid = max(scenario.prompt_tokens, 1) / prompt_s
    prefill = interval(mid, coefficients.half_width(slopes, "prefill", work, machine))
    cold = LOAD_OVERHEAD_S + weights.file_bytes / device.storage.sequential_read_bytes_per_s.value
    warm = LOAD_OVERHEAD_S + weights.file_bytes / PAGE_CACHE_BYTES_PER_S
    load_cold, load_warm = interval(cold, _LOAD_SPREAD), interval(warm, _LOAD_SPREAD)
    first = first_token(scenario.prompt_tokens, decode, prefill, together)
    return SpeedPrediction(
        decode_tokens_per_s=decode,
        prefill_tokens_per_s=prefill,
        ttft_cold_s=_sum(load_cold, first),
        ttft_warm_s=first,
        load_cold_s=load_cold,
        load_warm_s=load_warm,
        active_bytes=round(work.weight_bytes),
        kv_read_bytes=round(work.kv_bytes),
        roofline_tokens_per_s=ceiling,
        limits={
            "weights": terms.weights_s / terms.total_s,
            "dequantisation": terms.dequantisation_s / terms.total_s,
            "kv cache": terms.kv_s / terms.total_s,
            "overhead": terms.overhead_s / terms.total_s,
        },
        unsettled=(
            *_unsettled("decode", decode, coefficients.least_known(gradient), machine, weights),
            *_unsettled("prefill", prefill, coefficients.least_known(slopes), machine, weights),
        ),
    )


def first_token(prompt_tokens: int, decode: Interval, prefill: Interval, sequence_count: int = 1) -> Interval:
    """Seconds of a prompt and a token, for each of so many sequences; ``decode`` is the rate of all of them."""
    ends = ((prefill.mid, decode.mid), (prefill.high, decode.high), (prefill.low, decode.low))
    mid, low, high = (sequence_count * (max(prompt_tokens, 1) / read + 1 / written) for read, written in ends)
    return Interval(mid=mid, low=low, high=high)


_SETTLES: Final = (
    ("chip", "any model by {api} on this device"),
    ("runtime", "any model by this runtime and {api}"),
    ("family", "any model by {api} on any chip of this family"),
    ("quant", "any model in {quant} by {api}"),
    ("type", "any model in {quant} by {api}"),
    ("moe", "any mixture of experts by {api} on this device"),
)
"""What to measure, by the word in the kind of the term that is known least."""


def _unsettled(phase: str, speed: Interval, key: str, machine: Machine, weights: Weights) -> tuple[str, ...]:
    """What to say of an interval that is too wide to decide by, and the measurement that would narrow it most."""
    if speed.high <= UNSETTLED_RATIO * speed.low:
        return ()
    what = next((text for word, text in _SETTLES if word in key), "this model by {api} on this device")
    test = "tg128" if phase == "decode" else "pp512"
    return (
        f"{phase} speed is not known well enough ({speed.low:.3g} to {speed.high:.3g} tokens/s): one {test} run of "
        f"{what.format(api=machine.api, quant=weights.quant)} would settle most of it",
    )


def machine_of(device: DeviceProfile, scenario: Scenario) -> Machine:
    """The engine of ``device`` that the scenario's api runs on, as the laws see it."""
    api = device.api(scenario.api)
    engine = device.engine_for(api)
    bandwidth = device.pool(device.pool_for(api)).bandwidth_bytes_per_s.value
    name = f"{device.chip} {engine.name if engine is not None and engine.kind != 'cpu' else ''}".strip()
    traits = traits_of(name, api, bandwidth, scenario.thread_count)
    peaks = engine.peak_flops_per_s if engine is not None else {}
    # the laws were fitted with the peaks of the table; data sheets count fp16 by one of two rates of accumulation
    if api != "cpu" and peaks and not traits.known_peak:
        shader = peaks.get("fp32") or peaks.get("fp16")
        matrix = peaks.get("fp16") or peaks.get("fp32")
        if shader is not None and matrix is not None:
            peak = shader_peak(traits.family, shader.value)
            traits = traits._replace(peak_flops_per_s=peak, matrix_flops_per_s=matrix.value, known_peak=True)
    # a card goes by its own name, a CPU by its own without the graphics in brackets
    card = engine is not None and device.pool_for(api) == "vram"
    own = engine.name if engine is not None and card else device.chip.partition("(")[0] if api == "cpu" else device.chip
    return Machine(api, bandwidth, traits, phone=device.kind in {"phone", "tablet"}, chip=chip_key(own))


def work_of(weights: Weights, scenario: Scenario, depth_tokens: float) -> Work:
    """What one decoded token reads of weights (``weights.read_of``) and of the cache."""
    shape, read = weights.shape, read_of(weights)
    kv_type = scenario.kv_type if scenario.kv_type in BLOCKS else "F16"
    kv = kv_read_bytes(shape, round(depth_tokens), kv_type)
    return Work(
        read.size_bytes,
        read.weight_count,
        shape.layer_count,
        kv,
        quant_class(weights.quant),
        shape.experts is not None,
        read.prompt_weight_count,
        prompt_bytes=read.size_bytes if shape.experts is None else sum(t.size_bytes for t in weights.tensors),
        type_name=weights.quant,
        recurrent_ratio=recurrent_ratio(shape),
    )


def _doubt(device: DeviceProfile, api: str) -> float:
    """Spread, in ln, that a bandwidth adds by its evidence: none if verified, 5 % recalled, 15 % assumed."""
    confidence = device.pool(device.pool_for(api)).bandwidth_bytes_per_s.confidence
    return {"from_memory": 0.05, "assumed": 0.15}.get(confidence, 0.0)


def _below(value: Interval, ceiling: float) -> Interval:
    """No part of an interval lies above the roofline."""
    return Interval(mid=min(value.mid, ceiling), low=min(value.low, ceiling), high=min(value.high, ceiling))


def _sum(one: Interval, two: Interval) -> Interval:
    """Sum of independent quantities: the widths add in squares."""
    mid = one.mid + two.mid
    low = math.hypot(one.mid - one.low, two.mid - two.low)
    high = math.hypot(one.high - one.mid, two.high - two.mid)
    return Interval(mid=mid, low=max(mid - low, 0.0), high=mid + high)
