"""One question: does this model fit on this device, how fast is it, what would help."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from harness import plugins
from harness.app.resolve import THIS_MACHINE, ResolvedModel, resolve_device, resolve_model, with_kept_costs
from harness.domain.device import DeviceProfile, Figure, MemoryPool
from harness.domain.drafting import PADDING_TOKENS
from harness.domain.placement import Placement
from harness.domain.prediction import (
    Interval,
    Limit,
    MemoryPart,
    MemoryPrediction,
    PartKind,
    Prediction,
    SpeedPrediction,
    Verdict,
)
from harness.domain.program import program_named
from harness.domain.scenario import Scenario
from harness.errors import RefusedError, UnknownNameError
from harness.predict.co_resident import Companion, shared_speed, with_companions
from harness.predict.compute_buffer import UNKNOWN_BUFFER_RATIO, UNKNOWN_BUFFER_SPREAD_RATIO, tower_buffer_bytes
from harness.predict.energy import Energy, Sustained, predict_energy, sustained
from harness.predict.fitted import work_of
from harness.predict.kv_cache import kv_cache_bytes
from harness.predict.memory import SPREAD_RATIO, memory_of, with_draft, with_head, with_parts, without_parts
from harness.predict.placed import fullest_card, with_cards
from harness.predict.program_fit import ProgramFit, program_fit
from harness.predict.speculative import BLOCK_RATIO, HEAD_RATIO
from harness.predict.speed import closed_loop_tokens_per_s, predict_speed
from harness.predict.streamed import Streamed, plan_under_budget, streamed_ways
from harness.predict.timed import matrices
from harness.predict.verdict import check_entitlement, judge, with_target


def predict(
    model: ResolvedModel,
    device: DeviceProfile,
    scenario: Scenario,
    *,
    target_tokens_per_s: float | None = None,
    minutes: float | None = None,
    **asked: Any,
) -> Prediction:
    """Memory, speed and verdict of one model on one device, placed as the scenario says.

    Where weights have no room, the speed is that of a mapped file which the system reads again, as llama.cpp runs it;
    ``app.ways`` knows better ways. ``asked`` is what :func:`in_memory` takes. A target speed must be held when all that
    lives in the app runs at once, and with ``minutes`` still after so long.

    Raises:
        RefusedError: As :func:`in_memory`.
    """
    now = in_memory(model, device, scenario, **asked)
    if now.verdict.word == "fits with streaming":
        mapped = next(way for way in streamed(model, device, scenario, now) if way.how.startswith("mapped"))
        now = now.replace(speed=mapped.speed)
    return held_to(now, model, device, scenario, target_tokens_per_s, minutes, beside=asked.get("beside", ()))


def in_memory(
    model: ResolvedModel, device: DeviceProfile, scenario: Scenario, *, entitled: bool = False, **beside: Any
) -> Prediction:
    """The same, with the speed that it has if all of its weights stay in memory.

    ``beside`` is what :func:`memory_in` takes.

    Raises:
        RefusedError: As :func:`memory_in`; the system has no higher limit to be ``entitled`` to.
    """
    memory = memory_in(model, device, scenario, **beside)
    return judged(memory, model, device, scenario, entitled=entitled)


def memory_in(
    model: ResolvedModel,
    device: DeviceProfile,
    scenario: Scenario,
    *,
    draft: ResolvedModel | None = None,
    head: str = "",
    beside: Sequence[Companion] = (),
) -> MemoryPrediction:
    """Memory of a model, of a draft for it, of its image tower and of what lives in the app beside them.

    A ``head`` of the model's own (``mtp``) drafts as many tokens as are asked for, else as its program does.

    Raises:
        RefusedError: The KV type cannot hold this model's keys, the device does not have the api, or the draft has
            another vocabulary.
    """
    api = device.api(scenario.api)
    if device.engine_for(api) is None:
        there = ", ".join(sorted({name for one in device.engines for name in one.apis}))
        raise RefusedError(f"{device.name} has no api {api!r}; it has {there}")
    shape = model.weights.shape
    if draft is not None and abs(draft.weights.shape.vocab_count - shape.vocab_count) > PADDING_TOKENS:
        counts = f"{draft.weights.shape.vocab_count} tokens, the target has {shape.vocab_count}"
        raise RefusedError(f"{draft.name} cannot draft for {model.name}: other vocabulary ({counts})")
    try:
        drafts = scenario.draft_tokens or (head == "mtp" and program_named(scenario.program).drafts)
        drafting = scenario.replace(draft_tokens=int(drafts))
        memory = memory_of(model.weights, drafting, device)
        if head == "mtp":
            memory = with_head(memory, model.weights, drafting, device)
        if draft is not None:
            memory = with_draft(memory, memory_of(draft.weights, scenario, device, placement=Placement()))
    except ValueError as error:
        raise RefusedError(f"{model.name}: a KV cache of type {scenario.kv_type} is impossible: {error}") from error
    if model.tower and model.tower_bytes:
        why, pool = "what looks at images, in F16 as published", device.pool_for(api)
        held = MemoryPart(PartKind.IMAGE_TOWER, model.tower_bytes, reason=why, pool=pool)
        memory = with_parts(memory, (held,), SPREAD_RATIO)
        patches, tokens, hidden = model.tower.patch_count, model.tower.image_tokens, model.tower.hidden_dim
        scratch = tower_buffer_bytes(patches, tokens, hidden) or round(UNKNOWN_BUFFER_RATIO * model.tower_bytes)
        why = "its scratch for the largest image" if hidden else "its scratch, estimated by the size of its file"
        buffer = MemoryPart(PartKind.IMAGE_BUFFER, scratch, reason=why, pool=pool)
        memory = with_parts(memory, (buffer,), SPREAD_RATIO if hidden else UNKNOWN_BUFFER_SPREAD_RATIO)
    memory = _widened(memory, model, scenario)
    if model.reads_only:
        memory = without_parts(memory, {PartKind.KV_CACHE, PartKind.CPU_KV_CACHE, PartKind.CELL_RECORDS})
    return with_companions(memory, beside) if beside else memory


def judged(
    memory: MemoryPrediction, model: ResolvedModel, device: DeviceProfile, scenario: Scenario, *, entitled: bool = False
) -> Prediction:
    """What :func:`memory_in` says, with speed and verdict (RefusedError: as :func:`in_memory`)."""
    check_entitlement(entitled, device)
    api, speed = device.api(scenario.api), _speed(model, device, scenario)
    name, quant = model.shown
    return Prediction(
        device=device.name,
        model=name,
        quant=quant,
        api=api,
        memory=memory,
        speed=speed,
        verdict=verdict_of(memory, device, scenario, entitled=entitled, speed=speed),
    )


def verdict_of(
    memory: MemoryPrediction,
    device: DeviceProfile,
    scenario: Scenario,
    *,
    entitled: bool = False,
    speed: SpeedPrediction | None = None,
) -> Verdict:
    """The verdict of a memory, on all of the cards that the placement splits over; ``speed`` tells what limits it.

    Each must hold its part.
    """
    count = len(scenario.placement.tensor_split) or 1
    verdict = judge(memory, speed, with_cards(device, count), entitled=entitled, api=device.api(scenario.api))
    full = fullest_card(memory.parts, device) if count > 1 else 0
    if verdict.word != "fits" or full <= 1:
        return verdict
    left, why = int(verdict.needed_bytes / full), "one of the cards has no room for its part"
    return verdict.replace(word="does not fit", binding_limit=Limit.ONE_CARD, available_bytes=left, reasons=(why,))


def streamed(model: ResolvedModel, device: DeviceProfile, scenario: Scenario, now: Prediction) -> list[Streamed]:
    """Ways to read from storage what has no room in memory, the fastest first."""
    plan = plan_under_budget(model.weights, device, now)
    return streamed_ways(plan, now.speed, scenario, model.weights.tensor_bytes)


def held_to(
    now: Prediction,
    model: ResolvedModel,
    device: DeviceProfile,
    scenario: Scenario,
    target_tokens_per_s: float | None,
    minutes: float | None,
    *,
    beside: Sequence[Companion] = (),
) -> Prediction:
    """The prediction judged by a wanted speed, with all that lives in the app running, and after so many minutes.

    The speed is that after the prompt; of weights from storage, whose reading hides the cache's, that of all depths.
    """
    if now.verdict.word == "does not fit":
        return now
    judged, said, depth = now.speed, tuple[str, ...](), scenario.depth_tokens
    if target_tokens_per_s is not None and now.verdict.word == "fits":
        depth += scenario.prompt_tokens
        after = _speed(model, device, scenario.replace(depth_tokens=depth))
        judged = judged.replace(decode_tokens_per_s=after.decode_tokens_per_s)
    if beside:
        judged, said = shared_speed(judged, device, beside, device.pool_for(now.api))
    if minutes is not None:
        late = outlook(model, device, scenario, judged.decode_tokens_per_s, minutes)[0]
        if late is None:
            said = (*said, f"speed after {minutes:g} minutes is not known of this device: judged on its first seconds")
        else:
            judged = judged.replace(decode_tokens_per_s=late.tokens_per_s)
            said = (*said, f"judged on the speed after {minutes:g} minutes: {late.evidence}")
    verdict = now.verdict
    if target_tokens_per_s is not None:
        verdict = with_target(verdict, judged, target_tokens_per_s, depth)
    return now.replace(verdict=verdict.replace(reasons=(*verdict.reasons, *said)))


def made_by_program(
    model: ResolvedModel, device: DeviceProfile, scenario: Scenario, *, context_asked: bool, layers_asked: bool
) -> ProgramFit | None:
    """What the scenario's program makes of the device by itself; None for one that takes what it is told.

    Raises:
        RefusedError: The KV type cannot hold this model's keys.
    """
    try:
        return program_fit(model.weights, scenario, device, context_asked=context_asked, layers_asked=layers_asked)
    except ValueError as error:
        raise RefusedError(f"{model.name}: a KV cache of type {scenario.kv_type} is impossible: {error}") from error


def throughput_of(model: str) -> Callable[[Scenario], float]:
    """New tokens a second of a closed loop on this machine, whose server runs the model.

    Raises:
        RefusedError: This machine was never probed.
        UnknownNameError: No such model.
    """
    from harness.runtimes._threads import default_thread_count  # it asks the system of its cores

    weights, device = resolve_model(model).weights, resolve_device(THIS_MACHINE[0])

    def told(scenario: Scenario) -> float:
        s = scenario.replace(thread_count=default_thread_count())
        return closed_loop_tokens_per_s(weights, with_kept_costs(device, s), s)

    return told


DOUBT_RATIO: Final = 1.3
"""A machine probed beside other load was predicted some 10 to 15 % wrong; twice that leaves room for more load."""


def _speed(model: ResolvedModel, device: DeviceProfile, scenario: Scenario) -> SpeedPrediction:
    """The speed, its decode interval as wide as what is in doubt asks: a busy probe, a quantisation that nobody knows.

    Weights may have any bits that files of the named quantisation have, and decode reads them.
    """
    speed = predict_speed(model.weights, device, scenario)
    costs = device.calibration(device.api(scenario.api))
    unsure = DOUBT_RATIO if device.doubts or (costs is not None and costs.disturbed_ratio) else 1.0
    less, more = _weights_between(model)
    decode = speed.decode_tokens_per_s
    decode = decode.replace(low=decode.low / unsure / more, high=decode.high * unsure / less)
    return speed.replace(decode_tokens_per_s=decode)


def _weights_between(model: ResolvedModel) -> tuple[float, float]:
    """Least and most bytes of the weights, over those counted; 1 and 1 where the quantisation is known."""
    if model.bits is None:
        return 1.0, 1.0
    less, more = (bits * model.weights.weight_count / 8 / model.weights.tensor_bytes for bits in model.bits)
    return min(less, 1.0), max(more, 1.0)


def _widened(memory: MemoryPrediction, model: ResolvedModel, scenario: Scenario) -> MemoryPrediction:
    """The same of memory; the cache of a model that nobody knows may be that of any of the nearest known ones."""
    held = model.weights.tensor_bytes
    less, more = ((ratio - 1) * held for ratio in _weights_between(model))
    if model.guess is not None:
        caches = [kv_cache_bytes(shape, scenario) for shape in (model.weights.shape, *model.guess.around)]
        less, more = less + min(caches) - caches[0], more + max(caches) - caches[0]
    peak = memory.peak_bytes
    return memory.replace(peak_bytes=peak.replace(low=max(peak.low + less, 0.0), high=peak.high + more))


def speeds_by_depth(
    model: ResolvedModel, device: DeviceProfile, scenario: Scenario
) -> tuple[tuple[int, Interval], ...]:
    """Decode speed after the prompt, and with the context half full and full: (tokens in the cache, tokens/s)."""
    room = scenario.context_tokens // scenario.batch_count - scenario.new_tokens
    prompt = scenario.depth_tokens + scenario.prompt_tokens
    half = scenario.context_tokens // scenario.batch_count // 2
    depths = [prompt, *(d for d in (half, room) if prompt < d <= room)]
    made = [(d, _speed(model, device, scenario.replace(depth_tokens=d))) for d in dict.fromkeys(depths)]
    return tuple((d, s.decode_tokens_per_s) for d, s in made)


def first_token_s(
    model: ResolvedModel, device: DeviceProfile, scenario: Scenario, kept_tokens: int, new_tokens: int
) -> Interval:
    """Seconds until one user gets the first token after so many new ones, ``kept_tokens`` before them in the cache."""
    asked = scenario.replace(depth_tokens=kept_tokens, prompt_tokens=new_tokens, batch_count=1)
    return _speed(model, device, asked).ttft_warm_s


def image_s(model: ResolvedModel, scenario: Scenario, read: Interval) -> Interval | None:
    """Seconds of an image of 1024 x 1024 pixels in a prompt that is read at ``read`` tokens/s; None if it sees none.

    The tower computes at the rate at which the prompt does: nobody published a time of its own, so that the interval
    reaches from nothing for it to twice that.
    """
    if model.tower is None or not model.tower.image_tokens:
        return None
    tokens = model.tower.image_tokens
    more = model.tower.image_flops / (2 * work_of(model.weights, scenario, 0).prompt_weight_count)
    return Interval(mid=(tokens + more) / read.mid, low=tokens / read.high, high=(tokens + 2 * more) / read.low)


def outlook(
    model: ResolvedModel, device: DeviceProfile, scenario: Scenario, decode: Interval, minutes: float
) -> tuple[Sustained | None, Energy | None]:
    """Decode speed after ``minutes`` and energy of a token, both after the prompt; None for what is not known.

    ``decode`` is the speed of the first seconds there, tokens/s.
    """
    api = device.api(scenario.api)
    if scenario.batch_count > 1:  # both laws are of one sequence
        return None, None
    depth_tokens = scenario.depth_tokens + scenario.prompt_tokens
    work = work_of(model.weights, scenario, depth_tokens + scenario.new_tokens / 2)
    asked = device, api, work, decode, minutes
    return sustained(*asked), predict_energy(*asked)


def timing_notes(model: ResolvedModel, device: DeviceProfile, scenario: Scenario) -> tuple[str, ...]:
    """What a speed on this machine rests on, where the engine was not timed with all of the model's types."""
    calibration = device.calibration(device.api(scenario.api))
    if device.doubts:
        return (f"the profile of this machine is in doubt ({device.doubts[0]}): intervals are wider",)
    if calibration is None:
        return ("speed rests on the probed bandwidth alone: `edge-harness check` times the engine here and keeps it",)
    timed = {cost.type_name for cost in calibration.types}
    missing = sorted({m.tensor.type_name for m in matrices(model.weights)} - timed - {"F32"})
    if not missing:
        return ()
    return (f"never timed here: {', '.join(missing)}; the nearest timed type stands for it, with a wider interval",)


def over_cards(device: DeviceProfile, placement: Placement | None) -> Placement | None:
    """A placement that was asked for with a share for each of several cards: those of their memory unless it has any.

    Raises:
        RefusedError: It has shares of more cards than there are.
    """
    count = device.card_count
    if placement is None or count < 2:
        return placement
    shares = placement.tensor_split or device.card_shares
    if len(shares) > count:
        raise RefusedError(f"-ts {','.join(f'{share:g}' for share in shares)}: {device.name} has {count} cards")
    return placement.replace(tensor_split=(*shares, *(0.0,) * (count - len(shares))))


def within_budget(device: DeviceProfile, ram_budget_bytes: int) -> DeviceProfile:
    """The device with at most that much RAM for the app, whatever its system would allow; RefusedError for none."""
    if ram_budget_bytes <= 0:
        raise RefusedError(f"a RAM budget is above 0 bytes, got {ram_budget_bytes}")

    def cut(pool: MemoryPool) -> MemoryPool:
        usable = min(ram_budget_bytes, pool.total_bytes.value)
        asked = Figure(usable, "asked for", "assumed")
        return pool.replace(usable_bytes=asked, entitled_bytes=None) if pool.name == "ram" else pool

    return device.replace(pools=tuple(map(cut, device.pools)))


def head_beside(head: str, model: ResolvedModel) -> list[Companion]:
    """The weights of a head that drafts; an MTP head's lie in the model's own file."""
    ratio = {"eagle": HEAD_RATIO, "dflash": BLOCK_RATIO}.get(head)
    why = "weights of the head that drafts, as a share of the model's"
    return [Companion(f"{head} head", round(ratio * model.weights.file_bytes), reason=why)] if ratio else []


def companion(text: str) -> Companion:
    """What ``--with`` names, asked of every installed package that offers companions.

    Raises:
        RefusedError: No package offers any, or the one of that name refuses what follows the colon.
        UnknownNameError: No package knows that name.
    """
    offers = plugins.every("edge_harness.companions")
    if not offers:
        raise RefusedError(f"--with {text}: no installed package offers what lives beside a model")
    known: list[str] = []
    for offer in offers:
        names, make = offer()
        if text.partition(":")[0] in names:
            found: Companion = make(text)
            return found
        known += names
    raise UnknownNameError("companion", text.partition(":")[0], known)
