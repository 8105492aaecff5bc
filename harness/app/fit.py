"""One question: does this model fit on this device, how fast is it, what would help."""

from collections.abc import Iterable

from msgspec.structs import replace

from harness.app.resolve import ResolvedModel
from harness.domain.device import DeviceProfile, Figure, MemoryPool
from harness.domain.prediction import Prediction
from harness.domain.scenario import Scenario
from harness.errors import RefusedError
from harness.feasibility.advice import Advice, Variant, advise
from harness.feasibility.memory import backend_of, engine_of, predict_memory, with_draft
from harness.feasibility.speed import predict_speed
from harness.feasibility.verdict import judge
from harness.feasibility.weights import weights_of


def predict(
    model: ResolvedModel,
    device: DeviceProfile,
    scenario: Scenario,
    *,
    target_tokens_per_s: float | None = None,
    entitled: bool = False,
    draft: ResolvedModel | None = None,
) -> Prediction:
    """Memory, speed and verdict of one model on one device; with a draft model beside it, the memory of both.

    Raises:
        RefusedError: The KV type cannot hold this model's keys, or the device does not have the backend.
    """
    backend = backend_of(scenario, device)
    if engine_of(backend, device) is None:
        there = ", ".join(sorted({name for engine in device.engines for name in engine.backends}))
        raise RefusedError(f"{device.name} has no backend {backend!r}; it has {there}")
    try:
        memory = predict_memory(model.weights, scenario, backend=backend, device=device)
        if draft is not None:
            memory = with_draft(memory, predict_memory(draft.weights, scenario, backend=backend, device=device))
    except ValueError as error:
        raise RefusedError(f"{model.name}: a KV cache of type {scenario.kv_type} is impossible: {error}") from error
    speed = predict_speed(model.weights, device, scenario)
    verdict = judge(memory, speed, device, scenario, target_tokens_per_s, entitled=entitled)
    return Prediction(
        device=device.name,
        model=model.name,
        quant=model.quant,
        backend=backend,
        memory=memory,
        speed=speed,
        verdict=verdict,
    )


def within_budget(device: DeviceProfile, ram_budget_bytes: int) -> DeviceProfile:
    """The device with at most that much RAM for the app, whatever its system would allow.

    Raises:
        RefusedError: No memory at all.
    """
    if ram_budget_bytes <= 0:
        raise RefusedError(f"a RAM budget is above 0 bytes, got {ram_budget_bytes}")

    def cut(pool: MemoryPool) -> MemoryPool:
        if pool.name != "ram":
            return pool
        limit = Figure(
            value=min(ram_budget_bytes, pool.total_bytes.value), source="the budget asked for", confidence="assumed"
        )
        return replace(pool, usable_bytes=limit, entitled_bytes=None)

    return replace(device, pools=tuple(cut(pool) for pool in device.pools))


def advice_for(
    model: ResolvedModel,
    device: DeviceProfile,
    scenario: Scenario,
    now: Prediction,
    *,
    target_tokens_per_s: float | None = None,
    entitled: bool = False,
    draft: ResolvedModel | None = None,
    others: Iterable[DeviceProfile] = (),
) -> list[Advice]:
    """Ranked changes for what ``predict`` said; mixtures other than the given one are computed from the shape."""

    def evaluate(variant: Variant) -> Prediction:
        changed = model
        if variant.quant != model.quant:
            changed = model._replace(quant=variant.quant, weights=weights_of(model.weights.shape, variant.quant))
        return predict(
            changed,
            variant.device,
            variant.scenario,
            target_tokens_per_s=target_tokens_per_s,
            entitled=entitled,
            draft=draft,
        )

    return advise(
        now,
        model.weights.shape,
        Variant(model.quant, scenario, device),
        evaluate,
        parameter_count=sum(t.element_count for t in model.weights.tensors),
        others=others,
    )
