"""The same questions for many devices, models, mixtures and contexts at once, by broadcasting instead of looping.

What a cell needs is a sum of a term that weights decide and a term that context decides, and both depend on the device
only through a few classes (api, pool, instruction sets). Each term is computed once with the very functions that
``predict_memory`` and ``judge`` use, and numpy adds and compares them for every cell: integers, so equal to the scalar
path, not close to it.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from harness.domain.device import DeviceProfile, PoolName
from harness.domain.model import ModelShape, Weights
from harness.domain.placement import Placement
from harness.domain.prediction import MemoryPart
from harness.domain.scenario import Scenario
from harness.predict.decode import Work, decode_seconds
from harness.predict.fitted import machine_of, work_of
from harness.predict.learned import believed
from harness.predict.memory import context_parts, process_parts, weight_parts
from harness.predict.moe import expert_bytes, inclusion
from harness.predict.passes import Part, Pass, Split, pass_terms, scaled
from harness.predict.placed import SPREAD_RATIO
from harness.predict.repack import repacked_types
from harness.predict.speed import engines_of, predict_speed
from harness.predict.streamed import layer_bytes
from harness.predict.streaming import BUSY_DISK_RATIO, SLOT_COUNT, SMOOTHNESS
from harness.predict.verdict import STREAMED_WINDOW_RATIO, available_bytes_of, needed_bytes_of, weight_bytes_of
from harness.predict.weights import weights_of

WORDS: Final = ("fits", "fits with streaming", "does not fit", "fits split")
"""Verdicts by their number in ``Grid.verdict``; ``fits split``: a part of it lies with the CPU."""
SPLIT: Final = WORDS.index("fits split")

IMPOSSIBLE: Final = -1
"""Verdict of a cell that cannot exist: the device has no such api, or the KV type does not divide a row."""

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


class Grid(NamedTuple):
    """Answers by [device, model, quant, context].

    Attributes:
        devices: Names along the first axis.
        models: Names along the second.
        quants: Mixtures along the third.
        contexts: Tokens along the fourth.
        apis: Api of each device.
        needed_bytes: What must be held or read for every token, in the pool that is fullest.
        available_bytes: What one app may use of that pool.
        verdict: Index into ``WORDS``, or ``IMPOSSIBLE``.
        decode_tokens_per_s: Decode speed at the scenario's depth with all in one memory, by [device, model, quant]:
            what is reserved for a longer context does not slow a token down, only what is in it does.
        reached_tokens_per_s: The same by the best way there is, by cell: split, or read from storage; nan for none.
            Within a few per cent of what a search of the placements finds (``splits.py``, ``streamed.py``).
    """

    devices: tuple[str, ...]
    models: tuple[str, ...]
    quants: tuple[str, ...]
    contexts: tuple[int, ...]
    apis: tuple[str, ...]
    needed_bytes: Integers
    available_bytes: Integers
    verdict: NDArray[np.int8]
    decode_tokens_per_s: Floats
    reached_tokens_per_s: Floats


class _Pool(NamedTuple):
    """Terms of one pool for one class of devices."""

    fixed: Integers  # [model, quant]: needed without cache and scratch
    weights: Integers  # [model, quant]: of it, weights
    growing: Integers  # [model, context]: cache and scratch


class _Class(NamedTuple):
    """Terms of one class of devices."""

    pools: dict[PoolName, _Pool]
    possible: NDArray[np.bool_]  # [model, context]


def sweep(
    devices: Sequence[DeviceProfile],
    models: Sequence[tuple[str, ModelShape]],
    quants: Sequence[str],
    contexts: Sequence[int],
    *,
    scenario: Scenario | None = None,
    entitled: bool = False,
) -> Grid:
    """Memory and verdict of every combination; ``models`` are names and shapes, ``quants`` canonical names.

    Of the scenario all but its ``context_tokens`` is asked; ``entitled`` as in ``judge``.

    Raises:
        UnknownNameError: There is no such mixture.
        RefusedError: A model's architecture has no table of tensors.
    """
    scenario = scenario or Scenario()
    weights = [[weights_of(shape, quant) for quant in quants] for _, shape in models]
    by_key: dict[tuple[object, ...], list[int]] = {}
    for index, device in enumerate(devices):
        if device.engine_for(device.api(scenario.api)) is None:
            continue  # its cells stay impossible
        by_key.setdefault(_class_key(device, scenario), []).append(index)
    shape4 = (len(devices), len(models), len(quants), len(contexts))
    needed, available = (np.zeros(shape4, dtype=np.int64) for _ in range(2))
    verdict = np.full(shape4, IMPOSSIBLE, dtype=np.int8)
    depth = scenario.depth_tokens + scenario.new_tokens / 2
    works = [_works(row, scenario, depth) for row in weights]
    speeds = decode_speeds(devices, weights, works, scenario)
    reached = np.full(shape4, np.nan)
    parts = _parts(weights, works)
    made: dict[tuple[object, ...], list[list[tuple[MemoryPart, ...]]]] = {}
    for key, members in by_key.items():
        device, api = devices[members[0]], devices[members[0]].api(scenario.api)
        kind = key if api == "cpu" else ("gpu", device.pool_for(api))  # no GPU repacks: one table a pool
        if kind not in made:
            made[kind] = [[weight_parts(one, scenario, api, device) for one in row] for row in weights]
        terms = _terms(device, models, weights, made[kind], contexts, scenario)
        rows = np.array(members)
        fields = _cells(terms, [devices[i] for i in members], entitled=entitled)
        needed[rows], available[rows], verdict[rows] = fields
        for row in members:
            asked = scenario, terms, parts, speeds[row], needed[row], available[row]
            verdict[row], reached[row] = _best_ways(devices[row], verdict[row], *asked)
    return Grid(
        devices=tuple(d.name for d in devices),
        models=tuple(name for name, _ in models),
        quants=tuple(quants),
        contexts=tuple(contexts),
        apis=tuple(d.api(scenario.api) for d in devices),
        needed_bytes=needed,
        available_bytes=available,
        verdict=verdict,
        decode_tokens_per_s=speeds,
        reached_tokens_per_s=reached,
    )


class _Parts(NamedTuple):
    """What can lie apart of each model and mixture: arrays [model, quant], but where said.

    Attributes:
        works: What a token needs; None where a model cannot run.
        experts: Bytes of routed experts.
        blocks: Bytes of all blocks.
        used: Used / all experts [model]; 1 for dense models.
        layers: Blocks [model].
        hits: Share of wanted experts in a cache of the most wanted, by its share of all in steps [model, step].
    """

    works: list[list[Work]]
    experts: Floats
    blocks: Floats
    used: Floats
    layers: Floats
    hits: Floats


_STEPS: Final = 64
_LEAST: Final = 1e-9
"""Share that stands for nothing, as a law of time divides by it."""


def _parts(weights: Sequence[Sequence[Weights]], works: list[list[Work]]) -> _Parts:
    shapes = [row[0].shape for row in weights if row]
    hits = np.zeros((len(shapes), _STEPS + 1))
    used = np.ones(len(shapes))
    for m, shape in enumerate(shapes):
        if (experts := shape.experts) is not None:
            used[m] = experts.used_count / experts.expert_count
            wanted = np.concatenate([[0.0], np.cumsum(inclusion(experts.expert_count, experts.used_count))])
            at = np.linspace(0, experts.expert_count, _STEPS + 1)
            hits[m] = np.interp(at, np.arange(len(wanted)), wanted) / wanted[-1]
    sizes = [[(float(expert_bytes(one)[0]), float(sum(layer_bytes(one)))) for one in row] for row in weights]
    bytes_of = np.array(sizes).reshape(len(shapes), -1, 2)
    layers = np.array([float(shape.layer_count) for shape in shapes])
    return _Parts(works, bytes_of[..., 0], bytes_of[..., 1], used, layers, hits)


def _best_ways(
    device: DeviceProfile,
    verdict: NDArray[np.int8],
    scenario: Scenario,
    terms: "_Class",
    parts: _Parts,
    speeds: Floats,
    needed: Integers,
    available: Integers,
) -> tuple[NDArray[np.int8], Floats]:
    """Verdicts and decode speeds of one device by the best way, each [model, quant, context]."""
    reached = np.where(verdict == 0, speeds[..., None], np.nan)
    word = verdict.copy()
    m, q, c = np.nonzero(verdict == 1)
    if len(m):
        reached[m, q, c] = _streamed(device, parts, m, q, (needed - available)[m, q, c], speeds[m, q])
    m, q, c = np.nonzero(verdict == WORDS.index("does not fit"))
    if not len(m) or "vram" not in terms.pools or device.engine_for("cpu") is None or not scenario_is_open(scenario):
        return word, reached
    ram, vram = terms.pools["ram"], terms.pools["vram"]
    on_card = (vram.fixed[m, q] + vram.growing[m, c]) * (1 + SPREAD_RATIO)
    in_ram = ram.fixed[m, q] + ram.growing[m, c]
    moved = np.maximum(on_card - available_bytes_of(device.pool("vram"), entitled=False), 0.0)
    room = available_bytes_of(device.pool("ram"), entitled=False) - in_ram
    cache = vram.growing[m, c]
    fits = (moved <= room) & (moved <= parts.blocks[m, q] + cache)
    if fits.any():
        at = m[fits], q[fits], c[fits]
        word[at] = SPLIT
        reached[at] = _split(device, scenario, parts, at[0], at[1], moved[fits], cache[fits])
    weights = vram.weights[m, q] + ram.weights[m, q]
    total = vram.fixed[m, q] + vram.growing[m, c] + in_ram
    window = total - weights + STREAMED_WINDOW_RATIO * weights <= room + in_ram
    streams = ~fits & window
    if streams.any():
        at = m[streams], q[streams], c[streams]
        missing = total[streams] - (room + in_ram)[streams]
        whole = _split(device, scenario, parts, at[0], at[1], parts.blocks[at[0], at[1]], 0.0)
        word[at], reached[at] = 1, _streamed(device, parts, at[0], at[1], missing, whole)
    return word, reached


def scenario_is_open(scenario: Scenario) -> bool:
    """Whether an answer may choose the api and what lies where."""
    return not scenario.api and scenario.placement == Placement()


def _streamed(device: DeviceProfile, parts: _Parts, m: Any, q: Any, missing: Any, speeds: Any) -> Floats:
    """Decode speed of cells where so many bytes have no room: layers streamed, or the most wanted experts kept."""
    disk = BUSY_DISK_RATIO * device.storage.sequential_read_bytes_per_s.value
    busy = device.storage.busy_read_bytes_per_s
    disk = busy.value if busy else disk
    layers, experts, used = parts.layers[m], parts.experts[m, q], parts.used[m]
    streamed = np.clip(missing * layers / np.maximum(layers - SLOT_COUNT, 1), 0.0, parts.blocks[m, q])
    compute_s = 1 / speeds
    by_layers = ((streamed / disk) ** SMOOTHNESS + compute_s**SMOOTHNESS) ** (1 / SMOOTHNESS)
    kept = np.clip(1 - missing / np.maximum(experts, 1.0), 0.0, 1.0)
    hit = parts.hits[m, np.round(kept * _STEPS).astype(int)]
    by_experts = np.where(kept > 0, used * experts * (1 - hit) / disk + compute_s, np.inf)
    return np.asarray(1 / np.minimum(by_layers, by_experts))


def _split(device: DeviceProfile, scenario: Scenario, parts: _Parts, m: Any, q: Any, moved: Any, cache: Any) -> Floats:
    """Decode speed of cells with so many bytes moved to the CPU: experts first, then whole blocks with their cache."""
    engines = engines_of(device, replace(scenario, placement=Placement(gpu_layers=0)))
    experts, blocks = parts.experts[m, q], parts.blocks[m, q]
    of_experts = np.minimum(moved, experts) / np.maximum(experts, 1.0)
    of_blocks = np.maximum(moved - experts, 0.0) / np.maximum(blocks - experts + cache, 1.0)
    result = np.full(len(m), np.nan)
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, (row, column) in enumerate(zip(m, q, strict=True)):
        work = parts.works[row][column] if parts.works[row] else None
        if work is not None:
            groups.setdefault((work.type_name, work.moe, work.recurrent_ratio > 0), []).append(i)
    for places in groups.values():
        work = _stack([parts.works[m[i]][q[i]] for i in places])
        alone = parts.used[m[places]] * experts[places] * (of_experts[places] - of_blocks[places])
        share = of_blocks[places]
        block = scaled(Part(work), np.maximum(share, _LEAST)).work
        left = scaled(Part(work), 1 - share).work
        ratio = 1 - alone / np.maximum(left.weight_bytes, 1.0)
        main = left._replace(weight_bytes=left.weight_bytes * ratio, weight_count=left.weight_count * ratio)
        away = scaled(Part(work), np.maximum(alone / work.weight_bytes, _LEAST)).work
        away = away._replace(kv_bytes=0.0 * away.kv_bytes, layer_count=0.0 * away.layer_count)
        crossings = (of_experts - of_blocks)[places] * parts.layers[m[places]] * work.moe + (share > 0)
        asked = Split(Part(main), Part(block, begins=False), Part(away, begins=False), crossings)
        result[places] = 1 / pass_terms(asked, engines, Pass(1)).total_s
    return result


def decode_speeds(
    devices: Sequence[DeviceProfile],
    weights: Sequence[Sequence[Weights]],
    works: Sequence[Sequence[Work]],
    scenario: Scenario,
) -> Floats:
    """Expected decode speed by [device, model, quant], in tokens/s.

    The fitted law is evaluated once for each device and class of work (quantisation class, experts or not), on arrays;
    a device with a calibration of its own answers one by one. Equal to ``predict_speed`` up to rounding (1e-12); nan
    where the KV type does not divide a model's rows.
    """
    groups: dict[tuple[str, str, str], list[tuple[int, int]]] = {}
    for m, row in enumerate(works):
        for q, work in enumerate(row):
            groups.setdefault((work.type_name, work.model, str(work.moe)), []).append((m, q))
    stacked = {kind: _stack([works[m][q] for m, q in places]) for kind, places in groups.items()}
    found = np.full((len(devices), len(weights), len(weights[0]) if weights else 0), np.nan)
    for d, device in enumerate(devices):
        if device.engine_for(device.api(scenario.api)) is None:
            continue
        if device.calibration(device.api(scenario.api)) is not None or scenario.batch_count > 1:
            for m in (m for m, row in enumerate(works) if row):
                found[d, m] = [predict_speed(one, device, scenario).decode_tokens_per_s.mid for one in weights[m]]
            continue
        machine, values = machine_of(device, scenario), believed(device).values
        for kind, places in groups.items():
            work = stacked[kind]
            seconds = decode_seconds(work, machine, values).total_s
            ceiling = machine.bandwidth_bytes_per_s / (work.weight_bytes + work.kv_bytes)
            rows, columns = zip(*places, strict=True)
            found[d, rows, columns] = np.minimum(1 / seconds, ceiling)
    return found


def _works(row: Sequence[Weights], scenario: Scenario, depth_tokens: float) -> list[Work]:
    """Work of one model in each mixture; none where its keys do not fit the KV type."""
    try:
        return [work_of(one, scenario, depth_tokens) for one in row]
    except ValueError:
        return []


def _stack(works: Sequence[Work]) -> Work:
    """Works of one class as one whose numbers are arrays; the law is arithmetic and takes either."""
    fields: dict[str, Any] = {
        name: np.array([getattr(w, name) for w in works], dtype=np.float64)
        for name in ("weight_bytes", "weight_count", "layer_count", "kv_bytes", "prompt_bytes", "recurrent_ratio")
    }
    return works[0]._replace(**fields)


def _class_key(device: DeviceProfile, scenario: Scenario) -> tuple[object, ...]:
    """What of a device its memory terms depend on."""
    api = device.api(scenario.api)
    engine = device.engine_for(api)
    repacked = tuple(sorted(repacked_types(engine.isa if engine else None).items())) if api == "cpu" else ()
    return api, device.pool_for(api), repacked


def _terms(
    device: DeviceProfile,
    models: Sequence[tuple[str, ModelShape]],
    weights: list[list[Weights]],
    parts_of_weights: list[list[tuple[MemoryPart, ...]]],
    contexts: Sequence[int],
    scenario: Scenario,
) -> _Class:
    api = device.api(scenario.api)
    names: tuple[PoolName, ...] = ("vram", "ram") if device.pool_for(api) == "vram" else ("ram",)
    size_mq, size_mc = (len(models), len(weights[0]) if weights else 0), (len(models), len(contexts))
    pools = {
        name: _Pool(np.zeros(size_mq, np.int64), np.zeros(size_mq, np.int64), np.zeros(size_mc, np.int64))
        for name in names
    }
    possible = np.ones(size_mc, np.bool_)
    for m, (_, shape) in enumerate(models):
        own = process_parts(shape, api, device)
        for q, of_weights in enumerate(parts_of_weights[m]):
            parts = (*of_weights, *own)
            for name, pool in pools.items():
                pool.fixed[m, q] = sum(needed_bytes_of(parts, name))
                pool.weights[m, q] = weight_bytes_of(parts, name)
        for c, context in enumerate(contexts):
            try:
                parts = context_parts(shape, replace(scenario, context_tokens=context), api, device)
            except ValueError:
                possible[m, c] = False
                continue
            for name, pool in pools.items():
                pool.growing[m, c] = sum(needed_bytes_of(parts, name))
    return _Class(pools, possible)


def _cells(
    terms: _Class, devices: Sequence[DeviceProfile], *, entitled: bool
) -> tuple[Integers, Integers, NDArray[np.int8]]:
    """Needed, available and verdict of one class, by [device, model, quant, context]."""
    worst: tuple[NDArray[Any], ...] = ()
    for name, pool in terms.pools.items():
        limits = [available_bytes_of(device.pool(name), entitled=entitled) for device in devices]
        available = np.array(limits, dtype=np.int64)[:, None, None, None]
        needed = (pool.fixed[:, :, None] + pool.growing[:, None, :])[None]
        rest = needed - pool.weights[None, :, :, None]
        verdict = np.where(needed <= available, 0, 2).astype(np.int8)
        if name == "ram":
            window = STREAMED_WINDOW_RATIO * pool.weights[None, :, :, None]
            verdict[(verdict == 2) & (rest + window <= available)] = 1
        own = (*(np.broadcast_to(term, verdict.shape) for term in (needed, available)), verdict)
        worst = tuple(np.where(verdict > worst[2], *both) for both in zip(own, worst, strict=True)) if worst else own
    word = np.where(terms.possible[None, :, None, :], worst[2], np.int8(IMPOSSIBLE))
    return worst[0], worst[1], word
