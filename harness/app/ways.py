"""Every way to run a model on a device, best first: whole, split, over several cards, by the CPU, or from storage."""

from bisect import bisect_left
from typing import Any

from harness.app.fit import held_to, judged, memory_in, streamed, verdict_of
from harness.app.resolve import ResolvedModel
from harness.domain.base import Frozen
from harness.domain.device import DeviceProfile
from harness.domain.placement import Placement
from harness.domain.prediction import MemoryPrediction, PartKind, Prediction
from harness.domain.scenario import Scenario
from harness.errors import RefusedError
from harness.predict.advice import Advice, Variant, advise
from harness.predict.splits import best_split
from harness.predict.weights import weights_of


class Way(Frozen):
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
    def is_whole(self) -> bool:
        """Whether all of it lies where it was asked to, or on cards."""
        return self.is_usual or self.how.startswith("whole")

    @property
    def request_s(self) -> float:
        """Seconds of the scenario's prompt and new tokens."""
        speed, asked = self.prediction.speed, self.scenario
        reading_s = asked.prompt_tokens / speed.prefill_tokens_per_s.mid
        return asked.batch_count * (reading_s + asked.new_tokens / speed.decode_tokens_per_s.mid)


def ways(model: ResolvedModel, device: DeviceProfile, scenario: Scenario, **asked: Any) -> list[Way]:
    """Ways that run, fastest for the scenario's prompt and new tokens first; where none does, the one that lacks least.

    With an api or a placement in the scenario that is the only one, but for reading from storage what has no room.
    ``asked`` is what ``predict`` takes.

    Raises:
        RefusedError: As ``predict``; several cards on a device that has none.
    """
    several = device.card_count > 1
    is_placed = bool(scenario.placement.tensor_split) if several else scenario.placement != Placement()
    has_card = device.pool_for(device.api(scenario.api)) == "vram"
    if several and all(engine.pool == "ram" for engine in device.engines):
        raise RefusedError(f"{device.name} has no card of its own: there are no several of it")
    usual = memory_in(model, device, scenario, **_beside(asked))
    word = verdict_of(usual, device, scenario, entitled=asked.get("entitled", False)).word
    # Of unlike cards, nothing is known of one alone.
    is_one = is_placed or not has_card or len(set(device.card_shares)) < 2
    runs = word != "does not fit" and is_one
    searches = not is_placed and (several or (not scenario.api and word != "fits"))
    listed = _ways(model, device, scenario, asked, usual, is_usual=True) if runs else []
    if searches:
        if has_card:
            split = best_split(model.weights, device, scenario, _beside_on_card(usual))
            if split is not None:
                listed += _ways(model, device, scenario.replace(placement=split), asked)
        if device.engine_for("cpu") is not None and device.api(scenario.api) != "cpu":
            listed += _ways(model, device, scenario.replace(api="cpu", placement=Placement()), asked)
    running = [way for way in listed if _fits(way)] or [way for way in listed if way.runs]
    kinds: dict[str, Way] = {}

    def order(way: Way) -> tuple[bool, float]:
        # A GPU that shares the RAM wires what it computes with: a file larger than that is mapped for the CPU alone.
        api = way.prediction.api
        return way.how.startswith("mapped") and api != "cpu" and device.pool_for(api) == "ram", way.request_s

    for way in sorted(running, key=order):
        kinds.setdefault(way.how if _fits(way) else way.how.partition(" ")[2], way)
    if not kinds and is_one:
        listed += _ways(model, device, scenario, asked, usual, is_usual=True)
    more = device.pool("ram").entitled_bytes

    def lacks(way: Way) -> tuple[float, float]:
        verdict = way.prediction.verdict
        is_offered = more is not None and verdict.needed_bytes <= more.value
        return 1.0 if is_offered else verdict.lack_ratio, way.request_s

    return list(kinds.values()) or [min(listed, key=lacks)]


def longest_context(model: ResolvedModel, device: DeviceProfile, scenario: Scenario, **asked: Any) -> int:
    """The longest context, in steps of 256 tokens from the scenario's own, in which the model stays in memory.

    Whole on the usual engine, or on several cards, where it fits so at all, else by any way; at most what the model
    was made for.
    """

    def best(context_tokens: int) -> Way:
        return ways(model, device, scenario.replace(context_tokens=context_tokens), **asked)[0]

    can_be_whole = best(scenario.context_tokens).is_whole

    def is_too_long(context_tokens: int) -> bool:
        way = best(context_tokens)
        return not (_fits(way) and (way.is_whole or not can_be_whole))

    steps = range(scenario.context_tokens, (model.weights.shape.context_max_tokens or 1 << 17) + 1, 256)
    return steps[max(bisect_left(steps, True, key=is_too_long) - 1, 0)] if steps else scenario.context_tokens


def advice_for(
    model: ResolvedModel, device: DeviceProfile, scenario: Scenario, now: Prediction, **asked: Any
) -> list[Advice]:
    """Ranked changes for what the best way gives now, each answered by the best way there is after it.

    Mixtures other than the given one are computed from the shape; ``asked`` is what :func:`ways` was given.
    """

    def evaluate(variant: Variant, **changed: Any) -> tuple[Prediction, str]:
        other = model
        if variant.quant != model.quant:
            weights = weights_of(model.weights.shape, variant.quant)
            other = model._replace(quant=variant.quant, asked_quant="", bits=None, weights=weights)
        best = ways(other, variant.device, variant.scenario, **(asked | changed))[0]
        return best.prediction, best.how

    unchanged = Variant(model.quant, scenario, device)
    beside = asked.get("beside", ())
    without = [
        ("beside", f"leave out {left.name}", evaluate(unchanged, beside=[one for one in beside if one is not left]))
        for left in beside
    ]
    count = model.weights.weight_count
    return advise(now, model.weights.shape, unchanged, evaluate, parameter_count=count, more=without)


def _beside(asked: dict[str, Any]) -> dict[str, Any]:
    """Of what ``predict`` takes, what takes memory too."""
    return {name: value for name, value in asked.items() if name in {"draft", "head", "beside"}}


def _beside_on_card(memory: MemoryPrediction) -> int:
    """Bytes on the card of a draft, a head or an image tower, which no split moves."""
    of_tower = {PartKind.IMAGE_TOWER, PartKind.IMAGE_BUFFER}
    mine = (part for part in memory.parts if part.drafts or part.kind in of_tower)
    return sum(part.anonymous_bytes for part in mine if part.pool == "vram")


def _fits(way: Way) -> bool:
    return way.prediction.verdict.lack_ratio <= 1


def _ways(
    model: ResolvedModel,
    device: DeviceProfile,
    scenario: Scenario,
    asked: dict[str, Any],
    memory: MemoryPrediction | None = None,
    *,
    is_usual: bool = False,
) -> list[Way]:
    """The way of one placement; where only RAM for the weights is short, those of reading them from storage."""
    memory = memory or memory_in(model, device, scenario, **_beside(asked))
    now = judged(memory, model, device, scenario, entitled=asked.get("entitled", False))
    target = asked.get("target_tokens_per_s"), asked.get("minutes")
    placed = _placed_in_words(model.weights.shape.layer_count, device, scenario.placement, now.api)
    flags = "-ngl 0" if now.api == "cpu" else scenario.placement.flags(model.weights.shape.layer_count)
    made = [(placed, flags, is_usual, now.speed)]
    if now.verdict.word == "fits with streaming":
        made = [
            (way.how, flags if way.how.startswith("mapped") else "", False, way.speed)
            for way in streamed(model, device, scenario, now)
        ]
    return [
        Way(
            how=how,
            flags=flags,
            is_usual=usual,
            scenario=scenario,
            prediction=held_to(
                now.replace(speed=speed), model, device, scenario, *target, beside=asked.get("beside", ())
            ),
        )
        for how, flags, usual, speed in made
    ]


def _placed_in_words(blocks: int, device: DeviceProfile, placement: Placement, api: str) -> str:
    cards = len(placement.tensor_split)
    where = f"{cards} cards" if cards > 1 else "the card"
    start = placement.first_gpu_block(blocks)
    engine = device.engine_for(api)
    if engine is None or device.pool_for(api) == "ram":
        return f"by the {engine.kind.upper() if engine else api}"
    if start:
        return f"{blocks - start} of {blocks} blocks on {where}, the others with the CPU"
    if placement.cpu_moe:
        return f"on {where}, with the experts of {placement.cpu_moe} of {blocks} blocks kept on the CPU"
    return f"whole on {where}"
