"""Every way to run a model on a device, best first: whole, split, over several cards, by the CPU, or from storage."""

from typing import Any

from msgspec.structs import replace

from harness.app.fit import held_to, in_memory, predict
from harness.app.resolve import ResolvedModel
from harness.domain.base import Frozen
from harness.domain.device import DeviceProfile
from harness.domain.placement import Placement
from harness.domain.prediction import Prediction
from harness.domain.scenario import Scenario
from harness.errors import RefusedError
from harness.predict.splits import best_split
from harness.predict.streamed import plan_under_budget, streamed_ways


class Way(Frozen, frozen=True, kw_only=True):
    """One way.

    Attributes:
        how: What lies where, in words.
        flags: The same as options of llama.cpp; empty where it has none for it.
        is_usual: Whether it is what was asked for: whole on the device's usual engine, or as the user placed it.
        scenario: What was asked, with the api and the placement of this way.
        prediction: Its memory, speed and verdict.
    """

    how: str
    flags: str
    is_usual: bool
    scenario: Scenario
    prediction: Prediction

    @property
    def runs(self) -> bool:
        """Whether it runs at all, fast enough or not."""
        return self.prediction.verdict.word != "does not fit"

    @property
    def request_s(self) -> float:
        """Seconds of the scenario's prompt and new tokens."""
        speed, asked = self.prediction.speed, self.scenario
        reading_s = asked.prompt_tokens / speed.prefill_tokens_per_s.mid
        return asked.batch_count * (reading_s + asked.new_tokens / speed.decode_tokens_per_s.mid)


def ways(model: ResolvedModel, device: DeviceProfile, scenario: Scenario, **asked: Any) -> list[Way]:
    """Ways that run, fastest for the scenario's prompt and new tokens first; where none does, the usual one alone.

    With an api or a placement in the scenario that is the only one, but for reading from storage what has no room.
    ``asked`` is what ``predict`` takes.

    Raises:
        RefusedError: As ``predict``; several cards on a device that has none.
    """
    is_open = not scenario.api and scenario.placement == Placement()
    card = device.engine_for(device.api(scenario.api))
    has_card = card is not None and card.kind == "gpu" and card.pool == "vram"
    card_count = device.card_count
    if card_count > 1 and not has_card:
        raise RefusedError(f"{device.name} has no card of its own: there are no several of it")
    usual = _way(model, device, scenario, asked, is_usual=True)
    listed = [usual]
    if card_count > 1 or (is_open and not _fits(usual)):
        if has_card:
            split = best_split(model.weights, device, scenario, card_count)
            if split is not None:
                listed.append(_way(model, device, replace(scenario, placement=split), asked))
        if device.engine_for("cpu") is not None and device.api(scenario.api) != "cpu":
            by_cpu = replace(scenario, api="cpu", placement=Placement())
            listed.append(_way(model, device, by_cpu, asked))
    fitting = [way for way in listed if _fits(way)]
    if not fitting:
        fitting = [way for one in listed for way in _streamed(one, model, device, asked)]
    kinds: dict[str, Way] = {}
    for way in sorted(fitting, key=lambda way: way.request_s):
        kinds.setdefault(way.how if _fits(way) else way.how.partition(" ")[2], way)
    return list(kinds.values()) or [usual]


def _fits(way: Way) -> bool:
    verdict = way.prediction.verdict
    return verdict.word == "fits" or (verdict.word == "too slow" and verdict.needed_bytes <= verdict.available_bytes)


def _way(
    model: ResolvedModel, device: DeviceProfile, scenario: Scenario, asked: dict[str, Any], *, is_usual: bool = False
) -> Way:
    now = predict(model, device, scenario, **asked)
    blocks = model.weights.shape.layer_count
    placement = scenario.placement
    cards = len(placement.tensor_split)
    where = f"{cards} cards" if cards > 1 else "the card"
    start = placement.first_gpu_block(blocks)
    engine = device.engine_for(now.api)
    if engine is None or device.pool_for(now.api) == "ram":
        how = f"by the {engine.kind.upper() if engine else now.api}"
    elif start:
        how = f"{blocks - start} of {blocks} blocks on {where}, the others with the CPU"
    elif placement.cpu_moe:
        how = f"on {where}, but for the experts of {placement.cpu_moe} of {blocks} blocks, which stay with the CPU"
    else:
        how = f"whole on {where}"
    flags = "-ngl 0" if now.api == "cpu" else placement.flags(blocks)
    return Way(how=how, flags=flags, is_usual=is_usual, scenario=scenario, prediction=now)


def _streamed(one: Way, model: ResolvedModel, device: DeviceProfile, asked: dict[str, Any]) -> list[Way]:
    """Ways of reading from storage what has no room in RAM."""
    given = {name: value for name, value in asked.items() if name not in {"target_tokens_per_s", "minutes"}}
    now = in_memory(model, device, one.scenario, **given)
    if now.verdict.word != "fits with streaming":
        return []
    plan = plan_under_budget(model.weights, device, now)
    total = sum(t.size_bytes for t in model.weights.tensors)
    target = asked.get("target_tokens_per_s"), asked.get("minutes")
    return [
        Way(
            how=way.how,
            flags=one.flags if way.how.startswith("mapped") else "",
            is_usual=False,
            scenario=one.scenario,
            prediction=held_to(
                replace(now, speed=way.speed), model, device, one.scenario, *target, beside=asked.get("beside", ())
            ),
        )
        for way in streamed_ways(plan, now.speed, one.scenario, total)
    ]
