"""Seconds that a language model takes for the tokens which a workload's cost counts."""

from msgspec.structs import replace

from harness.domain.device import DeviceProfile
from harness.domain.model import Weights
from harness.domain.scenario import Scenario
from harness.domain.workload import Cost
from harness.predict.calibrated import pass_parts
from harness.predict.speculative import batch_cost
from harness.predict.speed import machine_of, predict_speed
from harness.predict.workload_cost import LanguageSeconds


def language_seconds(weights: Weights, device: DeviceProfile, scenario: Scenario) -> LanguageSeconds:
    """How long that model takes on that device for the passes of a cost.

    t = p t_pass(m / p tokens) + s t_pass(b tokens at depth d): m prompt tokens in p batches, s steps of b sequences. A
    calibrated device times passes of any batch; for another one a step of b sequences costs 1 + (b - 1) v steps of one,
    v the cost of a further token in a pass (``speculative.batch_cost``).
    """
    calibration = device.calibration(device.api(scenario.api))

    def seconds(cost: Cost) -> float:
        depth, batch = round(cost.depth_tokens), max(1, cost.decode_sequences_count)
        passes = max(1.0, cost.prefill_passes_count)
        prompt = round(cost.prefill_tokens_count / passes)
        total = 0.0
        if calibration is not None:
            if prompt:
                total += passes * pass_parts(weights, calibration, batch_tokens=prompt, output_tokens=1).total_s
            if cost.decode_steps_count:
                step = pass_parts(weights, calibration, batch_tokens=batch, depth_tokens=depth)
                total += cost.decode_steps_count * step.total_s
            return total
        asked = replace(scenario, prompt_tokens=max(prompt, 1), depth_tokens=depth, new_tokens=1)
        speed = predict_speed(weights, device, asked)
        if prompt:
            total += passes * prompt / speed.prefill_tokens_per_s.mid
        if cost.decode_steps_count:
            ratio = batch_cost(batch, machine_of(device, scenario))
            total += cost.decode_steps_count * ratio / speed.decode_tokens_per_s.mid
        return total

    return seconds
