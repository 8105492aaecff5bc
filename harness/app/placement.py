"""The best split of a model between a device's GPU and its CPU."""

from harness.app.resolve import ResolvedModel
from harness.domain.device import DeviceProfile
from harness.domain.scenario import Scenario
from harness.errors import RefusedError
from harness.predict.placed import Choices, choose


def best_placement(model: ResolvedModel, device: DeviceProfile, scenario: Scenario, card_count: int = 1) -> Choices:
    """Every step of the split, and the best of those that fit.

    Args:
        model: The model.
        device: The device.
        scenario: The prompt and the new tokens that the best one is fastest for.
        card_count: Cards of the device's kind.

    Raises:
        RefusedError: The device has no GPU, or no such api; the KV type cannot hold this model's keys.
    """
    api = device.api(scenario.api)
    engine = device.engine_for(api)
    if engine is None or engine.kind != "gpu":
        raise RefusedError(f"a placement needs a GPU beside the CPU: {device.name} drives {api} on no GPU")
    if device.engine_for("cpu") is None:
        raise RefusedError(f"{device.name} names no CPU engine: its profile needs one before a model can be split")
    try:
        return choose(model.weights, device, scenario, card_count)
    except ValueError as error:
        raise RefusedError(f"{model.name}: a KV cache of type {scenario.kv_type} is impossible: {error}") from error


def split_note(model: ResolvedModel, device: DeviceProfile, scenario: Scenario) -> tuple[str, ...]:
    """One line that tells of the best split, for a model that a card does not hold whole; none where no split helps."""
    if device.pool_for(device.api(scenario.api)) != "vram" or device.engine_for("cpu") is None:
        return ()
    best = best_placement(model, device, scenario).best
    if best is None:
        return ()
    speed = f"{best.decode_tokens_per_s.mid:.3g} tokens/s"
    return (f"split between the card and the CPU it runs: {best.flags}, {speed}; --placement auto shows every split",)
