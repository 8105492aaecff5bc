"""Every way to run a case, best first: what each placement takes and gives, memory, speed and verdict."""

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress

from harness.answer.advice import WIDE_CACHES, Advice, Adviser, Change, Variant
from harness.answer.case import Case, no_cache
from harness.answer.resolve import Model
from harness.core.device import Device
from harness.core.drafting import PADDING_TOKENS
from harness.core.errors import HarnessError, RefusedError
from harness.core.placement import Placement
from harness.core.prediction import (
    Interval,
    Limit,
    MemoryPart,
    MemoryPrediction,
    PartKind,
    Prediction,
    SpeedPrediction,
)
from harness.core.program import program_named
from harness.core.scenario import Scenario
from harness.core.way import Way, WayKind
from harness.memory.co_resident import shared_speed, with_companions
from harness.memory.compute_buffer import (
    UNKNOWN_BUFFER_RATIO,
    UNKNOWN_BUFFER_SPREAD_RATIO,
    tower_buffer_bytes,
)
from harness.memory.kv_cache import kv_cache_bytes
from harness.memory.peak import SPREAD_RATIO, memory_of, with_draft, with_head, with_parts, without_parts
from harness.memory.placed import fullest_card, with_cards
from harness.memory.splits import best_split, quick_first
from harness.memory.verdict import judge, with_target
from harness.models.guess import CACHE_RATIOS, WEIGHTS_RATIOS
from harness.models.weights import weights_of
from harness.speed.energy import Energy, Sustained, predict_energy, sustained
from harness.speed.estimate import predict_speed
from harness.speed.fitted import work_of
from harness.speed.streamed import Streamed, streamed_ways
from harness.speed.timed import matrices

_UNBOUNDED_TOKENS = 1 << 17
"""Longest context that is tried of a model whose own nobody told."""


def ways(case: Case) -> list[Way]:
    """Ways that run, the fastest to write first; where none does, the one that lacks least.

    Whole, on each kind of card of several and over as many of them as there are; where that has no room,
    split with the CPU, or by the CPU alone. A placement that was asked for is the only one, but for reading
    from storage what has no room.

    Raises:
        RefusedError: As :func:`harness.answer.ways.memory_in`; several cards on a device that has none.
    """
    device = case.device
    if device.card_count > 1 and device.own_pool is None:
        raise RefusedError(f"{device.name} has no card of its own: there are no several of it")
    has_card = device.has_own_memory(case.scenario.api)
    may_split = has_card and not case.is_placed
    waiting: list[tuple[Case, int | None]] = [(case, None)]
    if may_split and device.card_count > 1:
        waiting = [(case._replace(device=card), place) for place, card in _unlike_cards(device)]
        waiting += [(case.at(placement=placement), None) for placement in _over_cards(case)]
    asked = case.scenario.placement
    if asked.split_mode == "none" and device.card_count > 1:
        alone = case._replace(device=device.cards[asked.main_gpu])
        waiting = [(alone.at(placement=asked.replace(split_mode="layer", main_gpu=0)), asked.main_gpu)]
    has_cpu = (
        not (case.is_placed or case.is_whole)
        and case.scenario.api != "cpu"
        and device.engine_for("cpu") is not None
    )
    listed: list[Way] = []
    while waiting:
        one, place = waiting.pop(0)
        memory = memory_in(one)
        speed = predict_speed(one.model.weights, one.device, one.scenario)
        now = judged(one, memory, speed)
        listed += _told(one, now, place)
        if (
            may_split
            and not case.is_whole
            and one.scenario.placement == case.scenario.placement
            and now.verdict.word != "fits"
        ):
            placement = best_split(one.model.weights, one.device, one.scenario, _beside_on_card(memory))
            # The same placement again lacks RAM for what lives beside the model, which no split gives.
            if placement not in {None, one.scenario.placement}:
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
    found = list(best.values())
    first = found[0].scenario
    by_layer = found[0].kind is WayKind.CARDS and not case.is_placed and first.kv_type in WIDE_CACHES
    if by_layer and len({card.title for card in device.cards}) == 1:
        # Never the first: few architectures and builds know it, and its cache has to be wide.
        other = case.at(placement=first.placement.replace(split_mode="tensor"))
        now = judged(other, memory_in(other), predict_speed(case.model.weights, device, other.scenario))
        found += [way for way in _told(other, now, None) if way.fits]
    return found


def _decode(way: Way) -> float:
    return way.prediction.speed.decode_tokens_per_s.mid


def _unlike_cards(device: Device) -> Iterator[tuple[int, Device]]:
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
    if case.is_whole:
        yield case.scenario.placement.replace(tensor_split=shares)
        return
    placement = best_split(case.model.weights, device, case.scenario, _beside_on_card(memory_in(case)))
    if placement is not None:
        yield placement
        yield from quick_first(case.model.weights, device, case.scenario)


def _beside_on_card(memory: MemoryPrediction) -> int:
    """Bytes on the card of a draft, a head, an image tower or another model, which no split moves."""
    kept = {PartKind.IMAGE_TOWER, PartKind.IMAGE_BUFFER, PartKind.COMPANION}
    mine = (part for part in memory.parts if part.drafts or part.kind in kept)
    return sum(part.anonymous_bytes for part in mine if part.is_beside_ram)


def _told(case: Case, now: Prediction, card: int | None) -> Iterator[Way]:
    """The way of one placement; where only RAM for the weights is short, those of reading them from storage."""
    scenario = case.scenario
    if case.is_whole and now.verdict.word == "fits with streaming":
        now = now.replace(verdict=now.verdict.replace(word="does not fit"))
    if now.verdict.word != "fits with streaming":
        yield Way(kind=_kind(case, card), scenario=scenario, prediction=held_to(case, now), card=card)
        return
    # A GPU that shares the RAM wires what it computes with: a file larger than that is mapped for the CPU
    # alone.
    wires = scenario.api != "cpu" and not case.device.has_own_memory(scenario.api) and not case.is_placed
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
    if not device.has_own_memory(scenario.api):
        is_slower = scenario.api == "cpu" and device.api("") != "cpu"
        return WayKind.CPU if is_slower and not case.is_placed else WayKind.WHOLE
    if placement.first_gpu_block(case.model.weights.shape.layer_count):
        return WayKind.LAYERS
    if placement.cpu_moe and case.model.weights.shape.experts is not None:
        return WayKind.EXPERTS
    if card is not None:
        return WayKind.CARD
    return WayKind.CARDS if len(placement.tensor_split) > 1 else WayKind.WHOLE


def _lack(device: Device, way: Way) -> tuple[float, float]:
    """By how much a way does not fit; 1 where the system offers as much to an app that asks for it."""
    more, verdict = device.ram.entitled_bytes, way.prediction.verdict
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
    is_split = now.kind in {WayKind.LAYERS, WayKind.EXPERTS}
    adviser = Adviser(
        now.prediction, asked, model.weights.shape, model.weights.weight_count, is_split=is_split
    )
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


def predict(case: Case) -> Prediction:
    """Memory, speed and verdict of the case placed as its scenario says, and judged by what is wished for.

    Where weights have no room, the speed is that of a mapped file which the system reads again, as llama.cpp
    runs it.

    Raises:
        RefusedError: As :func:`memory_in`.
    """
    now = in_memory(case)
    if now.verdict.word == "fits with streaming":
        mapped = next(way for way in streamed(case, now) if way.kind is WayKind.MAPPED)
        now = now.replace(speed=mapped.speed)
    return held_to(case, now)


def in_memory(case: Case) -> Prediction:
    """The same, with the speed that it has if all of its weights stay in memory, and no wish.

    Raises:
        RefusedError: As :func:`memory_in`.
    """
    return judged(case, memory_in(case), predict_speed(case.model.weights, case.device, case.scenario))


def memory_in(case: Case) -> MemoryPrediction:
    """Memory of a model, of a draft for it, of its image tower and of what lives in the app beside them.

    A head of the model's own drafts as many tokens as are asked for, else as its program does.

    Raises:
        RefusedError: The KV type cannot hold this model's keys, or the draft has another vocabulary.
    """
    model = case.model
    device = case.device
    scenario = case.scenario
    draft = case.draft
    shape = model.weights.shape
    if draft is not None and abs(draft.weights.shape.vocab_count - shape.vocab_count) > PADDING_TOKENS:
        counts = f"{draft.weights.shape.vocab_count} tokens, the target has {shape.vocab_count}"
        raise RefusedError(f"{draft.name} cannot draft for {model.name}: other vocabulary ({counts})")
    is_mtp = case.head == "mtp"
    drafts = scenario.draft_tokens
    if is_mtp and not drafts:
        drafts = program_named(scenario.program).drafts
    drafting = scenario.replace(draft_tokens=drafts)
    try:
        memory = memory_of(model.weights, drafting, device)
        if is_mtp:
            memory = with_head(memory, model.weights, drafting, device)
        if draft is not None:
            memory = with_draft(memory, memory_of(draft.weights, scenario, device, placement=Placement()))
    except ValueError as error:
        raise no_cache(case, error) from error
    memory = _widened(_with_tower(memory, case), case)
    if model.reads_only:
        memory = without_parts(memory, {PartKind.KV_CACHE, PartKind.CPU_KV_CACHE, PartKind.CELL_RECORDS})
    for other in case.others:
        memory = with_parts(memory, other_parts(case, other), SPREAD_RATIO)
    if case.beside:
        return with_companions(memory, case.beside)
    return memory


def other_parts(case: Case, other: Model) -> tuple[MemoryPart, ...]:
    """What another model takes in each pool: whole with the same engine, as much context, a process of its own.

    Raises:
        RefusedError: The KV type cannot hold its keys.
    """
    alone = Case(other, case.device, case.scenario.replace(batch_count=1, placement=Placement()))
    parts = memory_in(alone).parts
    found = []
    for pool in dict.fromkeys(part.pool for part in parts):
        mine = [part for part in parts if part.pool == pool]
        found.append(
            MemoryPart(
                PartKind.COMPANION,
                sum(part.anonymous_bytes for part in mine),
                file_bytes=sum(part.file_bytes for part in mine),
                reason="another model, whole, with a context of its own",
                pool=pool,
                name=" ".join(other.shown),
            )
        )
    return tuple(found)


def _with_tower(memory: MemoryPrediction, case: Case) -> MemoryPrediction:
    """The same with what looks at images, where the model is asked for as one that does."""
    tower = case.model.tower
    if tower is None or not case.model.tower_bytes:
        return memory
    pool = case.device.pool_for(case.scenario.api)
    why = "what looks at images, in F16 as published"
    held = MemoryPart(PartKind.IMAGE_TOWER, case.model.tower_bytes, reason=why, pool=pool)
    memory = with_parts(memory, (held,), SPREAD_RATIO)
    scratch = tower_buffer_bytes(tower.patch_count, tower.image_tokens, tower.hidden_dim)
    spread = SPREAD_RATIO
    why = "its scratch for the largest image"
    if not tower.hidden_dim:
        spread = UNKNOWN_BUFFER_SPREAD_RATIO
        why = "its scratch, estimated by the size of its file"
    scratch = scratch or round(UNKNOWN_BUFFER_RATIO * case.model.tower_bytes)
    buffer = MemoryPart(PartKind.IMAGE_BUFFER, scratch, reason=why, pool=pool)
    return with_parts(memory, (buffer,), spread)


def _widened(memory: MemoryPrediction, case: Case) -> MemoryPrediction:
    """Memory with what may be otherwise of the weights' bits, and of a cache that may be any of the nearest shapes'."""
    model = case.model
    held = model.weights.tensor_bytes
    less, more = ((ratio - 1) * held for ratio in model.weights.size_doubt)
    if model.guess is not None:
        cache = kv_cache_bytes(model.weights.shape, case.scenario)
        less += (CACHE_RATIOS[0] - 1) * cache
        more += (CACHE_RATIOS[1] - 1) * cache
        low, high = WEIGHTS_RATIOS
        less += (low - 1) * held
        more += (high - 1) * held
    peak = memory.peak_bytes
    return memory.replace(peak_bytes=peak.replace(low=max(peak.low + less, 0.0), high=peak.high + more))


def judged(case: Case, memory: MemoryPrediction, speed: SpeedPrediction) -> Prediction:
    """A memory and a speed with their verdict: each of the cards that it is split over must hold its part."""
    count = len(case.scenario.placement.tensor_split) or 1
    api = case.scenario.api
    verdict = judge(memory, speed, with_cards(case.device, count), entitled=case.entitled, api=api)
    full = 0.0
    if count > 1:
        full = fullest_card(memory.parts, case.device)
    if verdict.word == "fits" and full > 1:
        left = int(verdict.needed_bytes / full)
        why = "one of the cards has no room for its part"
        verdict = verdict.replace(
            word="does not fit", binding_limit=Limit.ONE_CARD, available_bytes=left, reasons=(why,)
        )
    name, quant = case.model.shown
    return Prediction(
        device=case.device.name,
        model=name,
        quant=quant,
        api=api,
        memory=memory,
        speed=speed,
        verdict=verdict,
    )


def streamed(case: Case, now: Prediction) -> list[Streamed]:
    """Ways to read from storage what has no room in memory, the fastest first."""
    return streamed_ways(case.model.weights, case.device, case.scenario, now)


def held_to(case: Case, now: Prediction) -> Prediction:
    """The prediction judged by a wanted speed, with all that lives in the app running, and after the minutes asked for.

    The speed is that after the prompt; of weights from storage, whose reading hides the cache's, that of all
    depths.
    """
    if now.verdict.word == "does not fit":
        return now
    wanted = case.target_tokens_per_s
    judged_speed = now.speed
    said = tuple[str, ...]()
    depth = case.scenario.depth_tokens
    if wanted is not None and now.verdict.word == "fits":
        depth += case.scenario.prompt_tokens
        after = predict_speed(case.model.weights, case.device, case.scenario.replace(depth_tokens=depth))
        judged_speed = judged_speed.replace(decode_tokens_per_s=after.decode_tokens_per_s)
    if case.beside:
        judged_speed, said = shared_speed(
            judged_speed, case.device, case.beside, case.device.pool_for(now.api)
        )
    if case.minutes is not None:
        late = outlook(case, judged_speed.decode_tokens_per_s, case.minutes)[0]
        if late is None:
            why = "is not known of this device: judged on its first seconds"
            said = (*said, f"speed after {case.minutes:g} minutes {why}")
        else:
            judged_speed = judged_speed.replace(decode_tokens_per_s=late.tokens_per_s)
            said = (*said, f"judged on the speed after {case.minutes:g} minutes: {late.evidence}")
    verdict = now.verdict
    if wanted is not None:
        each = judged_speed.decode_tokens_per_s.through(lambda rate: rate / case.scenario.batch_count)
        judged_speed = judged_speed.replace(decode_tokens_per_s=each)
        verdict = with_target(verdict, judged_speed, wanted, depth)
    return now.replace(verdict=verdict.replace(reasons=(*verdict.reasons, *said)))


def outlook(case: Case, decode: Interval, minutes: float) -> tuple[Sustained | None, Energy | None]:
    """Decode speed after ``minutes`` and energy of a token, both after the prompt, or None.

    ``decode`` is the speed of the first seconds there, tokens/s. Both laws are of one sequence.
    """
    scenario = case.scenario
    if scenario.batch_count > 1:
        return None, None
    depth_tokens = scenario.depth_tokens + scenario.prompt_tokens
    work = work_of(case.model.weights, scenario, depth_tokens + scenario.new_tokens / 2)
    after = sustained(case.device, scenario.api, work, decode, minutes)
    return after, predict_energy(case.device, scenario.api, work, decode, minutes)


def image_s(model: Model, scenario: Scenario, read: Interval) -> Interval | None:
    """Seconds of an image of 1024 x 1024 pixels in a prompt that is read at ``read`` tokens/s.

    The result is None for a model without a vision encoder. The encoder computes at the rate at which the
    prompt does: nobody published a time of its own, so that the interval reaches from nothing for it to twice
    that.
    """
    if model.tower is None or not model.tower.image_tokens:
        return None
    tokens = model.tower.image_tokens
    more = model.tower.image_flops / (2 * work_of(model.weights, scenario, 0).prompt_weight_count)
    return Interval(
        mid=(tokens + more) / read.mid, low=tokens / read.high, high=(tokens + 2 * more) / read.low
    )


def timing_notes(case: Case) -> tuple[str, ...]:
    """What a speed on this machine rests on, where the engine was not timed with all of the model's types."""
    calibration = case.device.calibration(case.scenario.api)
    if case.device.doubts:
        return (f"the profile of this machine is in doubt ({case.device.doubts[0]}): intervals are wider",)
    if calibration is None:
        return (
            "speed rests on the probed bandwidth alone: `edge-harness check` times the engine here and keeps it",
        )
    timed = {cost.type_name for cost in calibration.types}
    missing = sorted({matrix.tensor.type_name for matrix in matrices(case.model.weights)} - timed - {"F32"})
    if not missing:
        return ()
    return (
        f"never timed here: {', '.join(missing)}; the nearest timed type stands for it, with a wider interval",
    )
