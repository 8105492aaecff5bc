"""The answers behind the matrix and the what-if panel of a page: computed here, a page only looks them up."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from harness.app.matrix import Cell, ask
from harness.app.resolve import PROBED_NAME
from harness.catalog.devices import device_names
from harness.catalog.models import model_names
from harness.domain.base import Frozen
from harness.domain.device import DeviceProfile
from harness.domain.record import RunRecord
from harness.predict.quality import perplexity_growth_percent
from harness.units import MIB

DEFAULT_QUANTS: Final = ("Q3_K_M", "Q4_K_M", "Q5_K_M", "Q8_0", "F16")
DEFAULT_CONTEXTS: Final = (2048, 8192, 32768, 131072)
_WIDE: Final = frozenset({"F16", "BF16", "F32"})
_MARKS: Final = {"fits": "0", "fits with streaming": "1", "does not fit": "2", "fits split": "3", "impossible": "-"}


class DeviceLine(Frozen):
    """A device as the page names it.

    Attributes:
        ram_mib: Memory installed in the pool its weights lie in.
        bandwidth_gb_per_s: Bandwidth of that pool, 10**9 bytes/s.
        flash_mb_per_s: Sequential read of its storage, 10**6 bytes/s.
    """

    name: str
    title: str
    kind: str
    api: str
    ram_mib: int
    bandwidth_gb_per_s: float
    flash_mb_per_s: int


class ModelLine(Frozen):
    """A model as the page names it; ``parameters_b`` in 10**9, 0 where unknown."""

    name: str
    title: str
    parameters_b: float
    context_max_tokens: int


class Shown(NamedTuple):
    """An answer as the page holds it: three significant digits, whole MiB.

    Attributes:
        mark: ``0`` fits, ``1`` fits with streaming, ``2`` does not fit, ``3`` fits split over the card and the CPU,
            ``-`` impossible.
        speed: Decode tokens/s by the best way; 0 where there is none.
        low: Lower end of its 90 % interval.
        needed_mib: Memory that must be held or is read for every token, in the pool that is fullest.
        available_mib: What one app may use of that pool.
        pool: Its name.
    """

    mark: str
    speed: float
    low: float
    needed_mib: int
    available_mib: int
    pool: str


class Choices(Frozen):
    """Answers for every device, model, mixture and context.

    Attributes:
        contexts: Tokens of KV cache.
        quality: For each model and mixture (model * quants + quant) the published growth of perplexity over F16, in
            tenths of a percent; null where unpublished.
        cells: Answers, ``((device * models + model) * quants + quant) * contexts + context``.
        default_quant: Index of the mixture shown first.
        default_context: Index of the context shown first.
    """

    devices: tuple[DeviceLine, ...]
    models: tuple[ModelLine, ...]
    quants: tuple[str, ...]
    contexts: tuple[int, ...]
    quality: tuple[int | None, ...]
    cells: tuple[Shown, ...]
    default_quant: int = 0
    default_context: int = 0

    def shown(self, device: int) -> tuple[Shown, ...]:
        """Answers of a device in the mixture and the context shown first, one for each model."""
        contexts = len(self.contexts)
        step = len(self.quants) * contexts
        first = device * len(self.models) * step
        at_first = first + self.default_quant * contexts + self.default_context
        return self.cells[at_first : first + len(self.models) * step : step]


def choices(
    *,
    devices: Sequence[str] = ("*",),
    models: Sequence[str] = ("*",),
    quants: Sequence[str] = DEFAULT_QUANTS,
    contexts: Sequence[int] = DEFAULT_CONTEXTS,
    each: Callable[[Iterable[Cell], int], Iterable[Cell]] = lambda cells, _count: cells,
) -> Choices:
    """Ask about all that the patterns match; the cells and their number pass through ``each``, which may count them.

    Raises:
        UnknownNameError: A pattern matches nothing.
        InputError: There are too many cells.
    """
    grid = ask(devices=devices, models=models, quants=quants, contexts=contexts)
    grid.devices.sort(key=lambda device: (_KINDS.index(device.kind), device.title.lower()))
    stated = {model.name: model.card.parameter_count if model.card else 0 for model in grid.models}
    sizes = {model.name: stated[model.name] or model.weights.weight_count for model in grid.models}
    grid.models.sort(key=lambda model: (sizes[model.name], model.name))
    mixtures = tuple(dict.fromkeys(model.quant for model in grid.models))
    growths = [
        0.0 if model.quant in _WIDE else perplexity_growth_percent(model.quant, sizes[model.name])
        for model in grid.models
    ]
    lines = [
        ModelLine(
            name=model.name,
            title=model.card.title if model.card else model.name,
            parameters_b=round(sizes[model.name] / 1e9, 2),
            context_max_tokens=model.weights.shape.context_max_tokens,
        )
        for model in grid.models[:: len(mixtures)]
    ]
    return Choices(
        devices=tuple(map(_device_line, grid.devices)),
        models=tuple(lines),
        quants=mixtures,
        contexts=tuple(grid.contexts),
        quality=tuple(None if growth is None else round(10 * growth) for growth in growths),
        cells=tuple(map(_shown, each(grid.cells(), grid.cell_count))),
        default_quant=mixtures.index("Q4_K_M") if "Q4_K_M" in mixtures else 0,
        default_context=min(1, len(grid.contexts) - 1),
    )


_BESIDE_DEVICES: Final = ("iphone-16-pro", "galaxy-s24", "macbook-air-m3", "raspberry-pi-5", "rtx-4090-desktop")
_BESIDE_MODELS: Final = ("llama-3.2-1b", "llama-3.2-3b", "llama-3.1-8b", "qwen3-30b-a3b")


def profile_of(device: str) -> str:
    """The profile's name of a machine as its records name it."""
    return PROBED_NAME if device == "this machine" else device


def beside(records: Sequence[RunRecord], **asked: Any) -> Choices:
    """What to predict beside runs: for all that nobody asks, their machines and models, and a few of each size.

    ``asked`` is what :func:`choices` takes.
    """
    known_devices, known_models = set(device_names()), set(model_names())
    devices = [profile_of(record.machine.device) for record in records]
    models = [record.name for record in records]
    usual = {
        "devices": tuple(n for n in dict.fromkeys((*devices, *_BESIDE_DEVICES)) if n in known_devices),
        "models": tuple(n for n in dict.fromkeys((*models, *_BESIDE_MODELS)) if n in known_models),
    }
    return choices(**(usual | asked))


_KINDS: Final = ("phone", "tablet", "laptop", "desktop", "workstation", "board", "edge-server", "gpu-server")


def _device_line(profile: DeviceProfile) -> DeviceLine:
    api = profile.api("")
    pool = profile.pool(profile.pool_for(api))
    return DeviceLine(
        name=profile.name,
        title=profile.title,
        kind=profile.kind,
        api=api,
        ram_mib=round(pool.total_bytes.value / MIB),
        bandwidth_gb_per_s=round(pool.bandwidth_bytes_per_s.value / 1e9, 1),
        flash_mb_per_s=round(profile.storage.sequential_read_bytes_per_s.value / 1e6),
    )


def _shown(cell: Cell) -> Shown:
    speed = cell.decode_tokens_per_s
    middle, low = (float(f"{value:.3g}") for value in ((speed.mid, speed.low) if speed else (0.0, 0.0)))
    sizes = -(-cell.needed_bytes // MIB), cell.available_bytes // MIB
    return Shown(_MARKS[cell.verdict], middle, low, *sizes, cell.pool)
