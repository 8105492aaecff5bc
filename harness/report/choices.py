"""The tables behind the matrix and the what-if panel: every answer is computed here, a page only looks it up.

Compact on purpose: verdicts are one digit a cell, devices of one class share their needs, speeds keep three digits.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from harness.app.matrix import matching, subject
from harness.app.resolve import PROBED_NAME, mixture_of
from harness.catalog.devices import device_names, load_device
from harness.catalog.models import model_names
from harness.domain.base import Frozen
from harness.domain.device import DeviceProfile
from harness.domain.model import ModelShape, Weights
from harness.domain.record import RunRecord
from harness.domain.scenario import Scenario
from harness.predict.fitted import work_of
from harness.predict.quality import perplexity_growth_percent
from harness.predict.speed import predict_speed
from harness.predict.sweep import SPLIT, Grid, sweep
from harness.predict.weights import weights_of
from harness.units import MIB

DEFAULT_QUANTS: Final = ("Q3_K_M", "Q4_K_M", "Q5_K_M", "Q8_0", "F16")
DEFAULT_CONTEXTS: Final = (2048, 8192, 32768, 131072)
_NODE_COUNT: Final = 6


class DeviceLine(Frozen, frozen=True, kw_only=True):
    """A device as the page names it.

    Attributes:
        ram_mib: Memory installed in the pool its weights lie in.
        available_mib: What one app may use of each pool that decides some cell, in ``Choices.pool``'s order.
        pool: Names of those pools.
        bandwidth_gb_per_s: Bandwidth of the pool the weights lie in, 10**9 bytes/s.
        flash_mb_per_s: Sequential read of its storage, 10**6 bytes/s.
    """

    name: str
    title: str
    kind: str
    api: str
    ram_mib: int
    available_mib: tuple[int, ...]
    pool: tuple[str, ...]
    bandwidth_gb_per_s: float
    flash_mb_per_s: int


class ModelLine(Frozen, frozen=True, kw_only=True):
    """A model as the page names it; ``parameters_b`` in 10**9, 0 where unknown."""

    name: str
    title: str
    parameters_b: float
    active_b: float
    context_max_tokens: int


class Choices(Frozen, frozen=True, kw_only=True):
    """Answers for every device, model, mixture and context.

    A cell of a device is numbered ``(model * quants + quant) * contexts + context``.

    Attributes:
        contexts: Tokens of KV cache.
        quality: For each model and mixture (model * quants + quant) the published growth of perplexity over F16, in
            tenths of a percent; null where unpublished.
        verdict: For each device one digit a cell: 0 fits, 1 fits with streaming, 2 does not fit, 3 fits split over the
            card and the CPU, ``-`` impossible.
        need_row: For each device the index of its row in ``needed_mib``.
        needed_mib: Distinct rows of what must be held or read for every token, MiB, a cell each.
        pool: For each device empty, or one digit a cell: which of its pools decides.
        speed: For each device decode tokens/s by (model * quants + quant), three significant digits.
        sure: For each device the lower end of the 90 % interval of ``speed``, as percent of it, same numbering; between
            a few models that were asked about, interpolated.
        streamed: For each device the tokens/s with streaming or split, of its cells with verdict 1 or 3 in their order.
        scenario: What else was asked.
        default_quant: Index of the mixture shown first.
        default_context: Index of the context shown first.
    """

    devices: tuple[DeviceLine, ...]
    models: tuple[ModelLine, ...]
    quants: tuple[str, ...]
    contexts: tuple[int, ...]
    quality: tuple[int | None, ...]
    verdict: tuple[str, ...]
    need_row: tuple[int, ...]
    needed_mib: tuple[tuple[int, ...], ...]
    pool: tuple[str, ...]
    speed: tuple[tuple[float, ...], ...]
    sure: tuple[tuple[int, ...], ...]
    streamed: tuple[tuple[float, ...], ...]
    scenario: Scenario
    default_quant: int = 0
    default_context: int = 0

    def shown(self, device: int) -> str:
        """Verdicts of a device in the mixture and the context shown first, one digit a model."""
        step, first = len(self.quants) * len(self.contexts), self.default_quant * len(self.contexts)
        return self.verdict[device][first + self.default_context :: step]

    def shown_speed(self, device: int, model: int) -> float:
        """Tokens/s of a model on a device in the mixture and the context shown first; streamed where it must be."""
        verdict, mixture = self.verdict[device], model * len(self.quants) + self.default_quant
        cell = mixture * len(self.contexts) + self.default_context
        before = verdict.count("1", 0, cell) + verdict.count("3", 0, cell)
        return self.streamed[device][before] if verdict[cell] in "13" else self.speed[device][mixture]


def choices(
    *,
    devices: Sequence[str] = ("*",),
    models: Sequence[str] = ("*",),
    quants: Sequence[str] = DEFAULT_QUANTS,
    contexts: Sequence[int] = DEFAULT_CONTEXTS,
) -> Choices:
    """Ask the feasibility model about all that the patterns match; UnknownNameError where one matches nothing."""
    scenario = Scenario()
    profiles = [load_device(name) for name in matching("device", devices, device_names())]
    profiles.sort(key=lambda device: (_KINDS.index(device.kind), device.title.lower()))
    subjects = [_subject(name) for name in matching("model", models, model_names())]
    subjects.sort(key=lambda one: (one[0], one[1].name))
    names = list(dict.fromkeys(mixture_of(q)[0] for q in quants))
    shapes = [(line.name, shape) for _, line, shape in subjects]
    grid = sweep(profiles, shapes, names, list(dict.fromkeys(contexts)), scenario=scenario)
    needed = np.ceil(grid.needed_bytes.reshape(len(profiles), -1) / MIB).astype(np.int64)
    rows, need_row = np.unique(needed, axis=0, return_inverse=True)
    pools = [_pools(grid, d, profile) for d, profile in enumerate(profiles)]
    reached = grid.reached_tokens_per_s
    return Choices(
        devices=tuple(_device_line(p, grid.apis[d], pools[d][0]) for d, p in enumerate(profiles)),
        models=tuple(line for _, line, _ in subjects),
        quants=grid.quants,
        contexts=grid.contexts,
        quality=tuple(_quality(q, count) for count, _, _ in subjects for q in grid.quants),
        verdict=tuple(
            "".join("-" if v < 0 else str(v) for v in row) for row in grid.verdict.reshape(len(profiles), -1)
        ),
        need_row=tuple(int(i) for i in np.ravel(need_row)),
        needed_mib=tuple(tuple(int(v) for v in row) for row in rows),
        pool=tuple(digits for _, digits in pools),
        speed=tuple(tuple(_digits(v) for v in row.ravel()) for row in grid.decode_tokens_per_s),
        sure=_sure(grid, profiles, [weights_of(shape, q) for _, shape in shapes for q in grid.quants], scenario),
        streamed=tuple(
            tuple(_digits(v) for v in speeds[(verdict == 1) | (verdict == SPLIT)])
            for speeds, verdict in zip(reached, grid.verdict, strict=True)
        ),
        scenario=scenario,
        default_quant=grid.quants.index("Q4_K_M") if "Q4_K_M" in grid.quants else 0,
        default_context=min(1, len(grid.contexts) - 1),
    )


_BESIDE_DEVICES: Final = ("iphone-16-pro", "galaxy-s24", "macbook-air-m3", "raspberry-pi-5", "rtx-4090-desktop")
_BESIDE_MODELS: Final = ("llama-3.2-1b", "llama-3.2-3b", "llama-3.1-8b", "qwen3-30b-a3b")


def profile_of(device: str) -> str:
    """The profile's name of a machine as its records name it."""
    return PROBED_NAME if device == "this machine" else device


def beside(records: Sequence[RunRecord]) -> dict[str, tuple[str, ...]]:
    """What to predict beside runs where nobody says: their machines and models, and a few of each size."""
    known_devices, known_models = set(device_names()), set(model_names())
    devices = [profile_of(record.machine.device) for record in records]
    models = [record.name for record in records]
    return {
        "devices": tuple(n for n in dict.fromkeys((*devices, *_BESIDE_DEVICES)) if n in known_devices),
        "models": tuple(n for n in dict.fromkeys((*models, *_BESIDE_MODELS)) if n in known_models),
    }


_KINDS: Final = ("phone", "tablet", "laptop", "desktop", "workstation", "board", "edge-server", "gpu-server")


def _subject(ref: str) -> tuple[int, ModelLine, ModelShape]:
    """Weights of a model that was asked about, as published or else as counted; its line, and its shape."""
    name, card, shape = subject(ref)
    stated, active = (card.parameter_count, card.active_parameter_count) if card else (0, 0)
    count = stated or sum(t.element_count for t in weights_of(shape, "F16").tensors)
    line = ModelLine(
        name=name,
        title=card.title if card else name,
        parameters_b=round(count / 1e9, 2),
        active_b=round((active or count) / 1e9, 2),
        context_max_tokens=shape.context_max_tokens,
    )
    return count, line, shape


def _pools(grid: Grid, d: int, profile: DeviceProfile) -> tuple[list[tuple[str, int]], str]:
    """Limits that decide some cell, with their pool's name; and which one decides each cell, if there are several."""
    found = grid.available_bytes[d].ravel()
    limits = sorted({int(v) for v in found})
    names = {int(p.usable_bytes.value): p.name for p in profile.pools}
    digits = "" if len(limits) == 1 else "".join(str(limits.index(int(v))) for v in found)
    return [(names.get(v, "ram"), v) for v in limits], digits


def _device_line(profile: DeviceProfile, api: str, limits: Sequence[tuple[str, int]]) -> DeviceLine:
    pool = profile.pool(profile.pool_for(api))
    return DeviceLine(
        name=profile.name,
        title=profile.title,
        kind=profile.kind,
        api=api,
        ram_mib=round(pool.total_bytes.value / MIB),
        available_mib=tuple(limit // MIB for _, limit in limits),
        pool=tuple(name for name, _ in limits),
        bandwidth_gb_per_s=round(pool.bandwidth_bytes_per_s.value / 1e9, 1),
        flash_mb_per_s=round(profile.storage.sequential_read_bytes_per_s.value / 1e6),
    )


def _quality(quant: str, parameter_count: int) -> int | None:
    if quant in {"F16", "BF16", "F32"}:
        return 0
    growth = perplexity_growth_percent(quant, parameter_count)
    return None if growth is None else round(10 * growth)


def _sure(
    grid: Grid, profiles: Sequence[DeviceProfile], listed: Sequence[Weights], scenario: Scenario
) -> tuple[tuple[int, ...], ...]:
    """Lower bound over middle, in percent, by device and (model * quants + quant).

    On one device, for one class of mixtures, the relative width of the interval changes smoothly with the speed: the
    model is asked at a few models from slow to fast, and between them the width is interpolated over ln of the speed.
    Models with layers that keep a state are a class apart: less is known of them.
    """
    groups: dict[tuple[str, bool, bool], list[int]] = {}
    for index, one in enumerate(listed):
        work = work_of(one, scenario, 0.0)
        groups.setdefault((work.quant_class, work.moe, work.recurrent_ratio > 0), []).append(index)
    found = []
    for d, profile in enumerate(profiles):
        speeds = grid.decode_tokens_per_s[d].ravel()
        share = np.zeros(len(listed))
        for members in groups.values():
            order = sorted(members, key=lambda i: float(speeds[i]))
            nodes = [order[i] for i in sorted({round(x) for x in np.linspace(0, len(order) - 1, _NODE_COUNT)})]
            asked = [predict_speed(listed[i], profile, scenario).decode_tokens_per_s for i in nodes]
            ratios = [s.low / s.mid if s.mid else 0.0 for s in asked]
            at = np.log(np.maximum(speeds[nodes], 1e-9))
            share[members] = np.interp(np.log(np.maximum(speeds[members], 1e-9)), at, ratios)
        found.append(tuple(int(v) for v in np.floor(100 * share)))
    return tuple(found)


def _digits(value: float) -> float:
    return float(f"{value:.3g}")
