"""The same questions for many devices, models, mixtures and contexts at once, by broadcasting instead of looping.

What a cell needs is a sum of a term that weights decide and a term that context decides, and both depend on the device
only through a few classes (backend, pool, instruction sets). Each term is computed once with the very functions that
``predict_memory`` and ``judge`` use, and numpy adds and compares them for every cell: integers, so equal to the scalar
path, not close to it.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from harness.domain.device import DeviceProfile, PoolName
from harness.domain.model import ModelShape, Weights
from harness.domain.prediction import MemoryPart, VerdictWord
from harness.domain.scenario import Scenario
from harness.feasibility.memory import (
    backend_of,
    context_parts,
    engine_of,
    load_extra_bytes,
    pool_of,
    process_parts,
    weight_parts,
)
from harness.feasibility.repack import repacked_types
from harness.feasibility.verdict import STREAMED_WINDOW_RATIO, needed_bytes_of, weight_bytes_of
from harness.feasibility.weights import weights_of

WORDS: Final[tuple[VerdictWord, ...]] = ("fits", "fits with streaming", "does not fit")
"""Verdicts by their number in ``Grid.verdict``."""

IMPOSSIBLE: Final = -1
"""Verdict of a cell that cannot exist: no table of tensors, or a KV type that does not divide a row."""

Integers = NDArray[np.int64]


class Grid(NamedTuple):
    """Answers by [device, model, quant, context].

    Attributes:
        devices: Names along the first axis.
        models: Names along the second.
        quants: Mixtures along the third.
        contexts: Tokens along the fourth.
        backends: Backend of each device.
        needed_bytes: What must be held or read for every token, in the pool that is fullest.
        available_bytes: What one app may use of that pool.
        peak_bytes: Peak memory in all pools.
        verdict: Index into ``WORDS``, or ``IMPOSSIBLE``.
    """

    devices: tuple[str, ...]
    models: tuple[str, ...]
    quants: tuple[str, ...]
    contexts: tuple[int, ...]
    backends: tuple[str, ...]
    needed_bytes: Integers
    available_bytes: Integers
    peak_bytes: Integers
    verdict: NDArray[np.int8]


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
    """Memory and verdict of every combination.

    Args:
        devices: Profiles.
        models: Names and shapes.
        quants: Mixtures by canonical name.
        contexts: Tokens of KV cache.
        scenario: Everything else that is asked; its ``context_tokens`` is not used.
        entitled: Whether the app has asked for the higher limit, where the system offers one.

    Raises:
        UnknownNameError: There is no such mixture.
        RefusedError: A model's architecture has no table of tensors.
    """
    scenario = scenario or Scenario()
    weights = [[weights_of(shape, quant) for quant in quants] for _, shape in models]
    by_key: dict[tuple[object, ...], list[int]] = {}
    for index, device in enumerate(devices):
        by_key.setdefault(_class_key(device, scenario), []).append(index)
    shape4 = (len(devices), len(models), len(quants), len(contexts))
    needed, available, peak = (np.zeros(shape4, dtype=np.int64) for _ in range(3))
    verdict = np.full(shape4, IMPOSSIBLE, dtype=np.int8)
    for members in by_key.values():
        terms = _terms(devices[members[0]], models, weights, contexts, scenario)
        rows = np.array(members)
        fields = _cells(terms, [devices[i] for i in members], entitled=entitled)
        needed[rows], available[rows], peak[rows], verdict[rows] = fields
    return Grid(
        devices=tuple(d.name for d in devices),
        models=tuple(name for name, _ in models),
        quants=tuple(quants),
        contexts=tuple(contexts),
        backends=tuple(backend_of(scenario, d) for d in devices),
        needed_bytes=needed,
        available_bytes=available,
        peak_bytes=peak,
        verdict=verdict,
    )


def _class_key(device: DeviceProfile, scenario: Scenario) -> tuple[object, ...]:
    """What of a device its memory terms depend on."""
    backend = backend_of(scenario, device)
    engine = engine_of(backend, device)
    repacked = tuple(sorted(repacked_types(engine.isa if engine else ()).items())) if backend == "cpu" else ()
    return backend, pool_of(backend, device), repacked


def _terms(
    device: DeviceProfile,
    models: Sequence[tuple[str, ModelShape]],
    weights: list[list[Weights]],
    contexts: Sequence[int],
    scenario: Scenario,
) -> _Class:
    backend = backend_of(scenario, device)
    names: tuple[PoolName, ...] = ("vram", "ram") if pool_of(backend, device) == "vram" else ("ram",)
    size_mq, size_mc = (len(models), len(weights[0]) if weights else 0), (len(models), len(contexts))
    pools = {
        name: _Pool(np.zeros(size_mq, np.int64), np.zeros(size_mq, np.int64), np.zeros(size_mc, np.int64))
        for name in names
    }
    peak_fixed, peak_load = np.zeros(size_mq, np.int64), np.zeros(size_mq, np.int64)
    peak_growing, possible = np.zeros(size_mc, np.int64), np.ones(size_mc, np.bool_)
    for m, (_, shape) in enumerate(models):
        own = process_parts(shape, backend, device)
        for q, one in enumerate(weights[m]):
            parts = (*weight_parts(one, scenario, backend, device), *own)
            for name, pool in pools.items():
                pool.fixed[m, q] = sum(needed_bytes_of(parts, name))
                pool.weights[m, q] = weight_bytes_of(parts, name)
            peak_fixed[m, q] = _total(parts)
            peak_load[m, q] = peak_fixed[m, q] + load_extra_bytes(one, scenario) if backend == "cpu" else 0
        for c, context in enumerate(contexts):
            try:
                parts = context_parts(shape, replace(scenario, context_tokens=context), backend, device)
            except ValueError:
                possible[m, c] = False
                continue
            for name, pool in pools.items():
                pool.growing[m, c] = sum(needed_bytes_of(parts, name))
            peak_growing[m, c] = _total(parts)
    return _Class(pools, peak_fixed, peak_load, peak_growing, possible)


def _total(parts: Iterable[MemoryPart]) -> int:
    return sum(p.anonymous_bytes + p.file_bytes for p in parts)


def _cells(
    terms: _Class, devices: Sequence[DeviceProfile], *, entitled: bool
) -> tuple[Integers, Integers, Integers, NDArray[np.int8]]:
    """Needed, available, peak and verdict of one class, by [device, model, quant, context]."""
    worst: tuple[Integers, Integers, NDArray[np.int8]] | None = None
    for name, pool in terms.pools.items():
        limits = []
        for device in devices:
            given = device.pool(name)
            limit = given.entitled_bytes if entitled and given.entitled_bytes else given.usable_bytes
            limits.append(int(limit.value))
        available = np.array(limits, dtype=np.int64)[:, None, None, None]
        needed = (pool.fixed[:, :, None] + pool.growing[:, None, :])[None]
        rest = needed - pool.weights[None, :, :, None]
        verdict = np.where(needed <= available, 0, 2).astype(np.int8)
        if name == "ram":
            window = STREAMED_WINDOW_RATIO * pool.weights[None, :, :, None]
            verdict[(verdict == 2) & (rest + window <= available)] = 1
        shape = verdict.shape
        needed, available = np.broadcast_to(needed, shape), np.broadcast_to(available, shape)
        if worst is None:
            worst = needed, available, verdict
        else:
            worse = verdict > worst[2]
            worst = (
                np.where(worse, needed, worst[0]),
                np.where(worse, available, worst[1]),
                np.where(worse, verdict, worst[2]),
            )
    assert worst is not None
    running = terms.peak_fixed[:, :, None] + terms.peak_growing[:, None, :]
    peak = np.maximum(running, terms.peak_load[:, :, None])[None]
    word = np.where(terms.possible[None, :, None, :], worst[2], np.int8(IMPOSSIBLE))
    return worst[0], worst[1], np.broadcast_to(peak, word.shape), word
