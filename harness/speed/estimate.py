"""Speed of one model on one device in one scenario, with intervals: two passes, loading, and what limits."""

import math
from typing import Final

from harness.core.device import Calibration, Device
from harness.core.model import EMBEDDING_TABLE, Weights
from harness.core.placement import Placement
from harness.core.prediction import Interval, Limit, SpeedPrediction
from harness.core.scenario import Scenario
from harness.core.units import format_number
from harness.memory.placed import parts_of
from harness.speed.coefficients import Coefficients, believed
from harness.speed.fitted import SPREAD_BY_LN, fitted_costs, work_of
from harness.speed.interval import UNSETTLED_RATIO, interval, widened
from harness.speed.passes import (
    HOST_SPREAD,
    MEETING_SPREAD,
    MEETINGS,
    NOTHING,
    RESIDUALS,
    Engines,
    Link,
    Part,
    Pass,
    Split,
    fitted_link,
    link_bytes_per_s,
    pass_terms,
    whole,
)
from harness.speed.prefill import prompt_of
from harness.speed.storage import expert_bytes
from harness.speed.timed import matrices, timed_costs

_LOAD_SPREAD: Final = 0.45
"""ln of storage as read by a loader over its data sheet: within a factor 1.6."""
_COLD_SPREAD: Final = 0.6
DOUBT_RATIO: Final = 1.3
"""A machine probed beside other load was predicted some 10 to 15 % wrong; twice that leaves room for more
load."""

MAP_BYTES_PER_S: Final = 8e9
"""Speed of mapping a file that is in the page cache. Source: the same machine, types that are not rewritten."""
LOAD_FIXED_S: Final = 0.05
"""Header and buffers. Source: the same machine."""
VOCABULARY_S_PER_ENTRY: Final = 1.2e-6
"""Building the tokenizer's tables, for each entry. Source: the same machine, loads of vocabularies alone with
49k to 262k entries: 1.15 to 1.3 us each (to 2.0 us on a busy machine)."""


def predict_speed(
    weights: Weights, device: Device, scenario: Scenario, belief: Coefficients | None = None
) -> SpeedPrediction:
    """Speed of ``weights`` on ``device``.

    Engines that were timed on the device answer from their own costs; any other from the coefficients fitted
    on published rows. With a ``belief`` all answer from that. Decode is taken at the mean depth of the
    generation: the depth and half of the new tokens. Rates of several sequences are those of all of them
    together; the first token is that of the last of them.
    """
    scenario = _placed(weights, device, scenario)
    engines = engines_of(device, scenario, belief)
    card = engines.cards[0]
    together = scenario.batch_count
    depth = scenario.depth_tokens + scenario.new_tokens / 2
    step = Pass(1, depth, together, scenario.ubatch_tokens, scenario.kv_type)
    prompt = step._replace(tokens=max(scenario.prompt_tokens, 1), depth_tokens=scenario.depth_tokens)
    split = split_of(weights, scenario, step)
    ceiling = together / _reading_s(split, engines, together)
    decode = _rate(split, engines, step).through(lambda speed: min(speed, ceiling))
    decode = _doubted(widened(decode, *weights.speed_doubt), weights, device, scenario)
    prefill = _rate(split_of(weights, scenario, prompt), engines, prompt)
    prefill = widened(prefill, *weights.speed_doubt)
    load_cold = _load(weights, device, scenario, from_storage=True)
    load_warm = _load(weights, device, scenario, from_storage=False)
    first = first_token(scenario, prefill)
    cold = Interval(
        load_cold.mid + first.mid, load_cold.low + first.low, load_cold.high + first.high
    )  # both may be late at once
    terms = pass_terms(split, engines, step)
    total_s = float(terms.total_s)
    parts = [part.work for part in (split.main, split.cpu, split.experts)]
    causes = zip(_CAUSES, terms, strict=True)
    return SpeedPrediction(
        decode_tokens_per_s=decode,
        prefill_tokens_per_s=prefill,
        ttft_cold_s=cold,
        ttft_warm_s=first,
        load_cold_s=load_cold,
        load_warm_s=load_warm,
        active_bytes=round(sum(work.weight_bytes for work in parts)),
        kv_read_bytes=round(sum(work.kv_bytes for work in parts)),
        roofline_tokens_per_s=ceiling,
        limits={name: seconds / total_s for name, seconds in causes if seconds or name != Limit.LINK},
        unsettled=(
            *_unsettled("decode speed", "tg128", decode, device.api(scenario.api)),
            *_unsettled("prefill speed", "pp512", prefill, device.api(scenario.api)),
        ),
        decode_evidence=card.evidence(step),
        prefill_evidence=card.evidence(prompt),
    )


_CAUSES: Final = (Limit.OVERHEAD, Limit.WEIGHTS, Limit.DEQUANTISATION, Limit.KV_CACHE, Limit.LINK)
"""Of the seconds of a pass, in the order of ``Terms``."""


def _rate(split: Split, engines: Engines, asked: Pass) -> Interval:
    """Tokens/s of a pass."""
    if split.away or len(engines.shares) > 1:
        spread = _split_spread(split, engines, asked)
    else:
        spread = engines.cards[0].spread(split.main, asked)
    return interval(asked.token_count / float(pass_terms(split, engines, asked).total_s), *spread)


def pass_seconds(weights: Weights, device: Device, scenario: Scenario, asked: Pass) -> float:
    """Seconds of any pass of a model, placed and driven as the scenario says."""
    scenario = _placed(weights, device, scenario)
    return float(pass_terms(split_of(weights, scenario, asked), engines_of(device, scenario), asked).total_s)


def closed_loop_tokens_per_s(weights: Weights, device: Device, scenario: Scenario) -> float:
    """New tokens a second where ``batch_count`` users each send their next request when the last one ended.

        X = n / (P / R_p + n / R_d(B))

    Of B sequences each has its prompt of P tokens read alone, at R_p tokens/s; then all make n tokens
    together, at R_d(B) tokens/s of all: B n tokens in B P / R_p + B n / R_d(B) seconds. That is the bound of
    one engine that is never idle (Lazowska et al. 1984, "Quantitative System Performance", chapter 5). The
    scenario's depth is what the prompts share, and is in the cache.
    """
    alone = predict_speed(weights, device, scenario.replace(batch_count=1))
    after = scenario.replace(depth_tokens=scenario.depth_tokens + scenario.prompt_tokens)
    together = predict_speed(weights, device, after)
    prompt_s = scenario.prompt_tokens / alone.prefill_tokens_per_s.mid
    return scenario.new_tokens / (prompt_s + scenario.new_tokens / together.decode_tokens_per_s.mid)


def _placed(weights: Weights, device: Device, scenario: Scenario) -> Scenario:
    """The scenario without a placement that its engine does not have."""
    engine = device.engine_for(device.api(scenario.api))
    has_cards = engine is not None and engine.kind == "gpu"
    if has_cards and not scenario.placement.whole(routed=weights.shape.experts is not None):
        return scenario
    return scenario.replace(placement=Placement())


def engines_of(device: Device, scenario: Scenario, belief: Coefficients | None = None) -> Engines:
    """What computes a pass: the engine that the api drives, as many cards as the placement splits over, and the CPU."""
    api = device.api(scenario.api)
    placement = scenario.placement
    is_split = placement != Placement()
    shared_memory = not device.has_own_memory(api)
    timed = None
    if belief is None:
        timed = device.calibration(api)
    timed_host = device.calibration("cpu") or timed
    if timed is not None and timed_host is not None and (timed_host is not timed or not is_split):
        link = _timed_link(timed, shared_memory=shared_memory)
        return Engines((timed_costs(device, timed),), timed_costs(device, timed_host), link)
    belief = belief or believed(device)
    main = fitted_costs(device, scenario, api, belief)
    if not is_split:
        return Engines((main,), main)
    host = fitted_costs(device, scenario, "cpu", belief)
    link_speed = link_bytes_per_s(main.machine, device.chip)
    stated = device.pool_of(api).link_bytes_per_s
    if stated:
        link_speed = stated.value
    link = fitted_link(link_speed, host.machine, shared_memory=shared_memory)
    shares = placement.tensor_split or (1.0,)
    even = tuple(share / sum(shares) for share in shares)
    cards = (main,) * len(shares)
    if len(device.cards) == len(shares) and len({card.chip for card in device.cards}) > 1:
        cards = tuple(fitted_costs(card, scenario, api, belief) for card in device.cards)
    told = device.ram.bandwidth_bytes_per_s.confidence != "assumed"
    return Engines(cards, host, link, even, MEETINGS.get(placement.split_mode), told)


def _timed_link(costs: Calibration, *, shared_memory: bool) -> Link:
    speed = costs.link_bytes_per_s or math.inf
    link = Link(costs.crossing_s, speed, speed)
    if shared_memory:
        return link._replace(copies_from=math.inf)
    return link


def split_of(weights: Weights, scenario: Scenario, asked: Pass) -> Split:
    """The parts of a model by the scenario's placement, and what one token of the pass needs of each."""
    placement = scenario.placement
    shape = weights.shape
    flops = prompt_of(shape, asked.tokens, asked.depth_tokens).attention_flops
    if placement.whole(routed=shape.experts is not None):
        return whole(Part(work_of(weights, scenario, asked.depth_tokens), weights, flops))
    parts = parts_of(weights, placement)
    main, cpu, experts = (
        Part(work_of(part, scenario, asked.depth_tokens), part, begins=False)
        if part.tensors or part.shape.layer_count
        else NOTHING
        for part in parts[:3]
    )
    main = main._replace(
        attention_flops=flops, begins=True, work=main.work._replace(moe=shape.experts is not None)
    )
    if not placement.kv_on_gpu:
        cpu = cpu._replace(work=cpu.work._replace(kv_bytes=cpu.work.kv_bytes + main.work.kv_bytes))
        main = main._replace(work=main.work._replace(kv_bytes=0.0))
    start = parts.first_gpu_block
    blocks = shape.layer_count
    crossings = len({t.block for t in parts.experts.tensors}) + (1 if 0 < start < blocks else 0)
    if not placement.kv_on_gpu:
        crossings = max(crossings, blocks - start)
    moved = [expert_bytes(part) for part in parts[1:3]]
    return Split(
        main=main,
        cpu=cpu,
        experts=experts,
        crossing_count=crossings,
        hidden_dim=shape.hidden_dim,
        copied_bytes=sum(others for _, others in moved),
        copied_expert_bytes=sum(routed for routed, _ in moved),
        expert_ratio=shape.expert_ratio,
    )


def _reading_s(split: Split, engines: Engines, sequences: int) -> float:
    """Least seconds of one token of each sequence: all bytes, at the bandwidth of the memory they lie in."""

    def size(part: Part) -> float:
        return part.work.weight_bytes + sequences * part.work.kv_bytes

    by_card = []
    for card, share in zip(engines.cards, engines.shares, strict=True):
        speed = card.reading_bytes_per_s(split.main.work.weight_bytes)
        by_card.append(share * size(split.main) / speed)
    main_s = sum(by_card)
    if engines.meeting is not None:
        main_s = max(by_card)
    away = size(split.cpu) + size(split.experts)
    return main_s + away / engines.host.reading_bytes_per_s(away)


def _split_spread(split: Split, engines: Engines, asked: Pass) -> tuple[float, float]:
    """How far ln(time) of a model in several memories may lie above and below."""
    more = SPREAD_BY_LN * math.log(asked.sequences)
    if engines.meeting is not None:
        more = math.hypot(more, MEETING_SPREAD)
    if split.away and not engines.host_told:
        more = math.hypot(more, HOST_SPREAD)
    above, below = RESIDUALS[asked.phase]
    return math.hypot(above, more), math.hypot(below, more)


def _doubted(decode: Interval, weights: Weights, device: Device, scenario: Scenario) -> Interval:
    """A decode speed as wide as a busy probe asks, and the bits that files of the named quantisation have."""
    costs = device.calibration(device.api(scenario.api))
    unsure = 1.0
    if device.doubts or (costs is not None and costs.disturbed_ratio):
        unsure = DOUBT_RATIO
    less, more = weights.size_doubt
    return decode.replace(low=decode.low / unsure / more, high=decode.high * unsure / less)


def first_token(scenario: Scenario, prefill: Interval) -> Interval:
    """Seconds of the prompts of all sequences, read at ``prefill`` tokens/s: their last logits give the first token."""
    return prefill.through(lambda rate: scenario.batch_count * max(scenario.prompt_tokens, 1) / rate)


def _unsettled(figure: str, test: str, speed: Interval, api: str) -> tuple[str, ...]:
    """What to say of an interval that is too wide to decide by, and the measurement that would narrow it most."""
    if speed.high <= UNSETTLED_RATIO * speed.low:
        return ()
    between = f"{format_number(speed.low)} to {format_number(speed.high)} tokens/s"
    settled_by = f"one {test} run of this model by {api} would settle most of it"
    return (f"{figure} is not known well enough ({between}): {settled_by}",)


def _load(weights: Weights, device: Device, scenario: Scenario, *, from_storage: bool) -> Interval:
    """Seconds to load from the page cache, or from storage.

    Fixed + vocabulary x time of an entry + bytes of each type x what they take: as an engine's tiny models
    showed where it was timed here. Any other is taken to map the file as it is.
    """
    disk = device.storage.sequential_read_bytes_per_s
    if scenario.mmap and device.storage.mapped_read_bytes_per_s is not None:
        disk = device.storage.mapped_read_bytes_per_s  # a mapped file comes in by page faults
    mapping_s = 1 / MAP_BYTES_PER_S
    spread = _LOAD_SPREAD
    seconds = LOAD_FIXED_S + weights.file_bytes * mapping_s
    seconds += weights.shape.vocab_count * VOCABULARY_S_PER_ENTRY
    if from_storage:
        spread = _COLD_SPREAD
        seconds += weights.file_bytes / disk.value
    costs = device.calibration(device.api(scenario.api))
    if costs is not None:
        types = {cost.type_name: cost for cost in costs.types if cost.load_s_per_byte}
        for matrix in matrices(weights):
            cost = types.get(matrix.tensor.type_name)
            is_table = matrix.tensor.name == EMBEDDING_TABLE  # no engine rewrites what is looked up too
            if cost is not None and not (is_table and cost.repacked):
                seconds += matrix.tensor.size_bytes * (cost.load_s_per_byte - mapping_s)
    return interval(seconds, spread)
