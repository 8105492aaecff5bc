"""Every way to run a case, best first: whole, split, over several cards, by the CPU, or from storage."""

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress

from harness.app.case import Case
from harness.app.placed import held_to, judged, memory_in, streamed
from harness.domain.device import DeviceProfile
from harness.domain.placement import Placement
from harness.domain.prediction import MemoryPrediction, PartKind, Prediction
from harness.domain.way import Way, WayKind
from harness.errors import HarnessError, RefusedError
from harness.predict.advice import Advice, Adviser, Change, Variant
from harness.predict.speed import predict_speed
from harness.predict.splits import best_split
from harness.predict.weights import weights_of

_UNBOUNDED_TOKENS = 1 << 17
"""Longest context that is tried of a model whose own nobody told."""


def ways(case: Case) -> list[Way]:
    """Ways that run, the fastest to write first; where none does, the one that lacks least.

    Whole, on each kind of card of several and over as many of them as there are; where that has no room,
    split with the CPU, or by the CPU alone. A placement that was asked for is the only one, but for reading
    from storage what has no room.

    Raises:
        RefusedError: As :func:`harness.app.placed.memory_in`; several cards on a device that has none.
    """
    device = case.device
    if device.card_count > 1 and all(engine.pool == "ram" for engine in device.engines):
        raise RefusedError(f"{device.name} has no card of its own: there are no several of it")
    has_card = device.pool_for(case.scenario.api) == "vram"
    may_split = has_card and not case.is_placed
    waiting: list[tuple[Case, int | None]] = [(case, None)]
    if may_split and device.card_count > 1:
        waiting = [(case._replace(device=card), place) for place, card in _unlike_cards(device)]
        waiting += [(case.at(placement=placement), None) for placement in _over_cards(case)]
    asked = case.scenario.placement
    if asked.split_mode == "none" and device.card_count > 1:
        alone = case._replace(device=device.cards[asked.main_gpu])
        waiting = [(alone.at(placement=asked.replace(split_mode="layer", main_gpu=0)), asked.main_gpu)]
    has_cpu = not case.is_placed and case.scenario.api != "cpu" and device.engine_for("cpu") is not None
    listed: list[Way] = []
    while waiting:
        one, place = waiting.pop(0)
        memory = memory_in(one)
        speed = predict_speed(one.model.weights, one.device, one.scenario)
        now = judged(one, memory, speed)
        listed += _told(one, now, place)
        if may_split and one.scenario.placement == case.scenario.placement and now.verdict.word != "fits":
            placement = best_split(one.model.weights, one.device, one.scenario, _beside_on_card(memory))
            if placement is not None:
                waiting.append((one.at(placement=placement), place))
        if not waiting and has_cpu and not any(way.kind.is_whole and way.fits and way.runs for way in listed):
            has_cpu = False
            may_split = False
            waiting.append((case.at(api="cpu", placement=Placement()), None))
    running = [way for way in listed if way.runs]
    if not running:
        return [min(listed, key=lambda way: _lack(case.device, way))]
    # What is read from storage is a way where nothing that has room in memory is as fast.
    in_memory = max((_decode(way) for way in running if way.fits), default=0.0)
    best: dict[tuple[object, ...], Way] = {}
    for way in sorted(running, key=_decode, reverse=True):
        if not way.fits and _decode(way) <= in_memory:
            continue
        # Reading from storage is one way, whichever engine computes.
        key: tuple[object, ...] = (way.kind,)
        if not way.kind.is_read:
            key = (way.kind, way.prediction.api, way.card)
        best.setdefault(key, way)
    return list(best.values())


def _decode(way: Way) -> float:
    return way.prediction.speed.decode_tokens_per_s.mid


def _unlike_cards(device: DeviceProfile) -> Iterator[tuple[int, DeviceProfile]]:
    """The first of each kind of card of a rig, alone, and its place."""
    seen = set[str]()
    for place, card in enumerate(device.cards):
        if card.title not in seen:
            seen.add(card.title)
            yield place, card


def _over_cards(case: Case) -> Iterator[Placement]:
    """Placements over several cards: over the first two, three, ... of like ones, and over all that there are.

    What does not fit on all of them is split with the CPU.
    """
    device = case.device
    shares = device.card_shares
    if len({card.title for card in device.cards}) == 1:
        for count in range(2, len(shares)):
            few = (*shares[:count], *(0.0,) * (len(shares) - count))
            yield case.scenario.placement.replace(tensor_split=few)
    placement = best_split(case.model.weights, device, case.scenario, _beside_on_card(memory_in(case)))
    if placement is not None:
        yield placement


def _beside_on_card(memory: MemoryPrediction) -> int:
    """Bytes on the card of a draft, a head, an image tower or another model, which no split moves."""
    kept = {PartKind.IMAGE_TOWER, PartKind.IMAGE_BUFFER, PartKind.COMPANION}
    mine = (part for part in memory.parts if part.drafts or part.kind in kept)
    return sum(part.anonymous_bytes for part in mine if part.pool == "vram")


def _told(case: Case, now: Prediction, card: int | None) -> Iterator[Way]:
    """The way of one placement; where only RAM for the weights is short, those of reading them from storage."""
    scenario = case.scenario
    if now.verdict.word != "fits with streaming":
        yield Way(kind=_kind(case, card), scenario=scenario, prediction=held_to(case, now), card=card)
        return
    # A GPU that shares the RAM wires what it computes with: a file larger than that is mapped for the CPU
    # alone.
    wires = scenario.api != "cpu" and case.device.pool_for(scenario.api) == "ram" and not case.is_placed
    for way in streamed(case, now):
        if wires and way.kind is WayKind.MAPPED:
            continue
        yield Way(
            kind=way.kind,
            scenario=scenario,
            prediction=held_to(case, now.replace(speed=way.speed)),
            card=card,
            pinned_count=way.pinned_count,
            hit_ratio=way.hit_ratio,
        )


def _kind(case: Case, card: int | None) -> WayKind:
    """What lies where by the case's placement, on one ``card`` of several or on all that there are."""
    scenario, device = case.scenario, case.device
    placement = scenario.placement
    if device.pool_for(scenario.api) == "ram":
        is_slower = scenario.api == "cpu" and device.api("") != "cpu"
        return WayKind.CPU if is_slower and not case.is_placed else WayKind.WHOLE
    if placement.first_gpu_block(case.model.weights.shape.layer_count):
        return WayKind.LAYERS
    if placement.cpu_moe and case.model.weights.shape.experts is not None:
        return WayKind.EXPERTS
    if card is not None:
        return WayKind.CARD
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

    def has_room(context_tokens: int) -> Iterator[Way]:
        return (way for way in ways(case.at(context_tokens=context_tokens)) if way.runs and way.has_room)

    can_be_whole = any(way.kind.is_whole for way in has_room(case.scenario.context_tokens))

    def is_too_long(context_tokens: int) -> bool:
        return not any(way.kind.is_whole or not can_be_whole for way in has_room(context_tokens))

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
    asked = Variant(model.quant, case.scenario, case.device)
    adviser = Adviser(now.prediction, asked, model.weights.shape, model.weights.weight_count)
    for left in case.beside:
        rest = tuple(one for one in case.beside if one is not left)
        change = Change("beside", f"leave out {left.name}", asked)
        adviser.take(change, ways(case._replace(beside=rest))[0])
    for change in adviser.changes():
        changed = case._replace(device=change.asked.device, scenario=change.asked.scenario)
        # No table of tensors, or a row of the cache that its blocks do not divide.
        with suppress(HarnessError, ValueError):
            if change.asked.quant != model.quant:
                weights = weights_of(model.weights.shape, change.asked.quant)
                other = model._replace(quant=change.asked.quant, asked_quant="", weights=weights)
                changed = changed._replace(model=other)
            adviser.take(change, ways(changed)[0])
    return adviser.ranked()
