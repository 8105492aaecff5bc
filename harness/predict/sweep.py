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
from harness.domain.prediction import MemoryPart, VerdictWord
from harness.domain.scenario import Scenario
from harness.predict.decode import Work, decode_seconds
from harness.predict.fitted import machine_of, work_of
from harness.predict.learned import believed
from harness.predict.memory import context_parts, load_extra_bytes, process_parts, total_bytes, weight_parts
from harness.predict.repack import repacked_types
from harness.predict.speed import predict_speed
from harness.predict.verdict import STREAMED_WINDOW_RATIO, available_bytes_of, needed_bytes_of, weight_bytes_of
from harness.predict.weights import weights_of

WORDS: Final[tuple[VerdictWord, ...]] = ("fits", "fits with streaming", "does not fit")
"""Verdicts by their number in ``Grid.verdict``."""

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
        peak_bytes: Peak memory in all pools.
        verdict: Index into ``WORDS``, or ``IMPOSSIBLE``.
        decode_tokens_per_s: Decode speed at the scenario's depth, by [device, model, quant]: what is reserved for a
            longer context does not slow a token down, only what is in it does.
        storage_bytes_per_s: Sequential read of each device's storage, which bounds what must be streamed.
        active_ratio: Share of the weights in RAM that one token reads, at most 1, by [device, model, quant].
    """

    devices: tuple[str, ...]
    models: tuple[str, ...]
    quants: tuple[str, ...]
    contexts: tuple[int, ...]
    apis: tuple[str, ...]
    needed_bytes: Integers
    available_bytes: Integers
    peak_bytes: Integers
    verdict: NDArray[np.int8]
    decode_tokens_per_s: Floats
    storage_bytes_per_s: Floats
    active_ratio: Floats


class _Pool(NamedTuple):
    """Terms of one pool for one class of devices."""

    fixed: Integers  # [model, quant]: needed without cache and scratch
    weights: Integers  # [model, quant]: of it, weights
    growing: Integers  # [model, context]: cache and scratch


class _Class(NamedTuple):
    """Terms of one class of devices."""

    pools: dict[PoolName, _Pool]
    peak_fixed: Integers  # [model, quant]
    peak_load: Integers  # [model, quant]: the same at the end of loading
    peak_growing: Integers  # [model, context]
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
    needed, available, peak = (np.zeros(shape4, dtype=np.int64) for _ in range(3))
    verdict = np.full(shape4, IMPOSSIBLE, dtype=np.int8)
    depth = scenario.depth_tokens + scenario.new_tokens / 2
    works = [_works(row, scenario, depth) for row in weights]
    endless = [np.inf] * len(quants)  # where a model cannot run
    active_bytes = np.array([[work.weight_bytes for work in row] or endless for row in works]).reshape(shape4[1:3])
    active_ratio = np.ones(shape4[:3])
    made: dict[tuple[object, ...], list[list[tuple[MemoryPart, ...]]]] = {}
    for key, members in by_key.items():
        device, api = devices[members[0]], devices[members[0]].api(scenario.api)
        kind = key if api == "cpu" else ("gpu", device.pool_for(api))  # no GPU repacks: one table a pool
        if kind not in made:
            made[kind] = [[weight_parts(one, scenario, api, device) for one in row] for row in weights]
        terms = _terms(device, models, weights, made[kind], contexts, scenario)
        rows = np.array(members)
        fields = _cells(terms, [devices[i] for i in members], entitled=entitled)
        needed[rows], available[rows], peak[rows], verdict[rows] = fields
        active_ratio[rows] = np.minimum(active_bytes / np.maximum(terms.pools["ram"].weights, 1), 1.0)
    return Grid(
        devices=tuple(d.name for d in devices),
        models=tuple(name for name, _ in models),
        quants=tuple(quants),
        contexts=tuple(contexts),
        apis=tuple(d.api(scenario.api) for d in devices),
        needed_bytes=needed,
        available_bytes=available,
        peak_bytes=peak,
        verdict=verdict,
        decode_tokens_per_s=decode_speeds(devices, weights, works, scenario),
        active_ratio=active_ratio,
        storage_bytes_per_s=np.array([d.storage.sequential_read_bytes_per_s.value for d in devices]),
    )


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
    peak_fixed, peak_load = np.zeros(size_mq, np.int64), np.zeros(size_mq, np.int64)
    peak_growing, possible = np.zeros(size_mc, np.int64), np.ones(size_mc, np.bool_)
    for m, (_, shape) in enumerate(models):
        own = process_parts(shape, api, device)
        for q, one in enumerate(weights[m]):
            parts = (*parts_of_weights[m][q], *own)
            for name, pool in pools.items():
                pool.fixed[m, q] = sum(needed_bytes_of(parts, name))
                pool.weights[m, q] = weight_bytes_of(parts, name)
            peak_fixed[m, q] = total_bytes(parts)
            peak_load[m, q] = peak_fixed[m, q] + load_extra_bytes(one, scenario) if api == "cpu" else 0
        for c, context in enumerate(contexts):
            try:
                parts = context_parts(shape, replace(scenario, context_tokens=context), api, device)
            except ValueError:
                possible[m, c] = False
                continue
            for name, pool in pools.items():
                pool.growing[m, c] = sum(needed_bytes_of(parts, name))
            peak_growing[m, c] = total_bytes(parts)
    return _Class(pools, peak_fixed, peak_load, peak_growing, possible)


def _cells(
    terms: _Class, devices: Sequence[DeviceProfile], *, entitled: bool
) -> tuple[Integers, Integers, Integers, NDArray[np.int8]]:
    """Needed, available, peak and verdict of one class, by [device, model, quant, context]."""
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
    running = terms.peak_fixed[:, :, None] + terms.peak_growing[:, None, :]
    peak = np.maximum(running, terms.peak_load[:, :, None])[None]
    word = np.where(terms.possible[None, :, None, :], worst[2], np.int8(IMPOSSIBLE))
    return worst[0], worst[1], np.broadcast_to(peak, word.shape), word
