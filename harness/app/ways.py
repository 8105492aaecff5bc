"""Every way to run a case, best first: whole, split, over several cards, by the CPU, or from storage."""

from bisect import bisect_left
from collections.abc import Iterator

from harness.app.case import Case
from harness.app.placed import cards_of, held_to, judged, memory_in, streamed, verdict_of
from harness.domain.device import DeviceProfile
from harness.domain.placement import Placement
from harness.domain.prediction import MemoryPrediction, PartKind
from harness.domain.way import Way, WayKind
from harness.errors import RefusedError
from harness.predict.advice import Advice, Variant, advise
from harness.predict.splits import best_split
from harness.predict.weights import weights_of

_UNBOUNDED_TOKENS = 1 << 17
"""Longest context that is tried of a model whose own nobody told."""


def ways(case: Case) -> list[Way]:
    """Ways that run, the fastest to write first; where none does, the one that lacks least.

    A placement that was asked for is the only one, but for reading from storage what has no room.

    Raises:
        RefusedError: As :func:`harness.app.placed.memory_in`; several cards on a device that has none.
    """
    several = case.device.card_count > 1
    if several and all(engine.pool == "ram" for engine in case.device.engines):
        raise RefusedError(f"{case.device.name} has no card of its own: there are no several of it")
    listed = list(_of_one(case) if case.is_placed else _searched(case))
    running = [way for way in listed if way.fits] or [way for way in listed if way.runs]
    if not running:
        return [min(listed, key=lambda way: _lack(case.device, way))]
    best: dict[tuple[object, ...], Way] = {}
    for way in sorted(running, key=lambda way: -way.prediction.speed.decode_tokens_per_s.mid):
        # Reading from storage is one way, whichever engine computes.
        key = (way.kind,) if way.kind.is_read else (way.kind, way.prediction.api, way.card)
        best.setdefault(key, way)
    return list(best.values())


def _searched(case: Case) -> Iterator[Way]:
    """All that may run: whole, on each card of several and over all.

    Where that has no room, beside or by the CPU.
    """
    device = case.device
    has_card = device.pool_for(case.scenario.api) == "vram"
    found = list[Way]()
    if device.card_count > 1 and has_card:
        for place, card in cards_of(device).items():
            for way in _on_card(case._replace(device=card)):
                kind = WayKind.CARD if way.kind is WayKind.WHOLE else way.kind
                found.append(way.replace(kind=kind, card=place))
        found += _split(case)
    elif has_card:
        found += _on_card(case)
    else:
        found += _of_one(case)
    yield from found
    is_whole = any(way.kind.is_whole and way.fits and way.runs for way in found)
    if not is_whole and case.scenario.api != "cpu" and device.engine_for("cpu") is not None:
        yield from _of_one(case.at(api="cpu", placement=Placement()))


def _on_card(case: Case) -> Iterator[Way]:
    """All of it on one card; where that has no room, the split that moves least to the CPU as well."""
    memory = memory_in(case)
    yield from _of_one(case, memory)
    if verdict_of(case, memory).word != "fits":
        yield from _split(case, memory)


def _split(case: Case, memory: MemoryPrediction | None = None) -> Iterator[Way]:
    """The split that moves least to the CPU, over all cards there are."""
    beside_bytes = _beside_on_card(memory or memory_in(case))
    placement = best_split(case.model.weights, case.device, case.scenario, beside_bytes)
    if placement is not None:
        yield from _of_one(case.at(placement=placement))


def _beside_on_card(memory: MemoryPrediction) -> int:
    """Bytes on the card of a draft, a head, an image tower or another model, which no split moves."""
    kept = {PartKind.IMAGE_TOWER, PartKind.IMAGE_BUFFER, PartKind.COMPANION}
    mine = (part for part in memory.parts if part.drafts or part.kind in kept)
    return sum(part.anonymous_bytes for part in mine if part.pool == "vram")


def _of_one(case: Case, memory: MemoryPrediction | None = None) -> Iterator[Way]:
    """The way of one placement; where only RAM for the weights is short, those of reading them from storage."""
    now = judged(case, memory or memory_in(case))
    if now.verdict.word != "fits with streaming":
        yield Way(kind=_kind(case), scenario=case.scenario, prediction=held_to(case, now))
        return
    api = case.scenario.api
    # A GPU that shares the RAM wires what it computes with: a file larger than that is mapped for the CPU
    # alone.
    wires = api != "cpu" and case.device.pool_for(api) == "ram"
    for way in streamed(case, now):
        if wires and way.kind is WayKind.MAPPED and not case.is_placed:
            continue
        yield Way(
            kind=way.kind,
            scenario=case.scenario,
            prediction=held_to(case, now.replace(speed=way.speed)),
            pinned_count=way.pinned_count,
            hit_ratio=way.hit_ratio,
        )


def _kind(case: Case) -> WayKind:
    """What lies where by the case's placement."""
    scenario, device = case.scenario, case.device
    placement = scenario.placement
    if device.pool_for(scenario.api) == "ram":
        is_slower = scenario.api == "cpu" and device.api("") != "cpu"
        return WayKind.CPU if is_slower and not case.is_placed else WayKind.WHOLE
    if placement.first_gpu_block(case.model.weights.shape.layer_count):
        return WayKind.LAYERS
    if placement.cpu_moe and case.model.weights.shape.experts is not None:
        return WayKind.EXPERTS
    return WayKind.CARDS if len(placement.tensor_split) > 1 else WayKind.WHOLE


def _lack(device: DeviceProfile, way: Way) -> tuple[float, float]:
    """By how much a way does not fit; 1 where the system offers as much to an app that asks for it."""
    more, verdict = device.pool("ram").entitled_bytes, way.prediction.verdict
    is_offered = more is not None and verdict.needed_bytes <= more.value
    return 1.0 if is_offered else verdict.lack_ratio, way.request_s


def longest_context(case: Case) -> int:
    """The longest context, in steps of 256 tokens from the scenario's own, in which the model has room in memory.

    Whole with the fast engine where it fits so at all, else by any way; at most what the model was made for.
    """

    def best(context_tokens: int) -> Way:
        return ways(case.at(context_tokens=context_tokens))[0]

    can_be_whole = best(case.scenario.context_tokens).kind.is_whole

    def is_too_long(context_tokens: int) -> bool:
        way = best(context_tokens)
        return not (way.has_room and way.runs and (way.kind.is_whole or not can_be_whole))

    most = case.model.weights.shape.context_max_tokens or _UNBOUNDED_TOKENS
    steps = range(case.scenario.context_tokens, most + 1, 256)
    if not steps:
        return case.scenario.context_tokens
    return steps[max(bisect_left(steps, True, key=is_too_long) - 1, 0)]


def advice_for(case: Case, now: Way) -> list[Advice]:
    """Ranked changes for what the best way gives now, each answered by the best way there is after it.

    Mixtures other than the given one are computed from the shape.
    """
    model = case.model

    def evaluate(variant: Variant, beside: Case = case) -> Way:
        other = model
        if variant.quant != model.quant:
            weights = weights_of(model.weights.shape, variant.quant)
            other = model._replace(quant=variant.quant, asked_quant="", weights=weights)
        return ways(beside._replace(model=other, device=variant.device, scenario=variant.scenario))[0]

    unchanged = Variant(model.quant, case.scenario, case.device)
    without = []
    for left in case.beside:
        rest = tuple(one for one in case.beside if one is not left)
        way = evaluate(unchanged, case._replace(beside=rest))
        without.append(("beside", f"leave out {left.name}", way))
    count = model.weights.weight_count
    return advise(
        now.prediction, model.weights.shape, unchanged, evaluate, parameter_count=count, more=without
    )
