"""One device: what it has, where each figure comes from, and what was measured on it."""

from datetime import UTC, datetime
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from harness.core.base import Frozen
from harness.core.model import Count

Time = Annotated[float, Meta(ge=0, le=1e12)]
Speed = Annotated[float, Meta(gt=0)]
Span = Annotated[float, Meta(ge=1e-9)]
"""Seconds that something is divided by: nothing lasts less than a nanosecond."""
Amount = Annotated[float, Meta(ge=0, le=1e18)]
Curve = tuple[tuple[int, Amount], ...]
"""What was measured at growing sizes: each with its value."""
MOST_CARDS: Final = 16
APIS: Final = ("cpu", "cuda", "metal", "npu", "opencl", "rocm", "sycl", "vulkan")
Api = Annotated[str, Meta(pattern=f"^({'|'.join(APIS)})\\Z")]
Confidence = Literal["measured", "verified", "secondary", "from_memory", "assumed"]
"""How far a figure can be trusted: measured by a named party, read in the vendor's or a maintainer's own
words, read second-hand, recalled without a source at hand, or assumed by analogy."""

DeviceKind = Literal[
    "phone", "tablet", "laptop", "desktop", "workstation", "board", "edge-server", "gpu-server"
]
EngineKind = Literal["cpu", "gpu", "npu"]
PoolName = Annotated[str, Meta(pattern="^[a-z][a-z0-9_]{0,30}\\Z")]
RAM: Final = "ram"
"""Name of the pool that every device has."""
CARD: Final = "vram"
"""Name of the pool of a graphics card with memory of its own."""
OperatingSystem = Literal["ios", "ipados", "android", "macos", "windows", "linux"]


NOT_PROBED = "not-probed"
"""Name of a machine of which one measurement told the speed, and nothing the memory."""


class Sourced(Frozen, kw_only=False):
    """A number with its evidence. The unit is in the name of the field that holds it."""

    value: Annotated[float, Meta(gt=0, le=1e18)]
    source: str
    confidence: Confidence

    @property
    def known_by(self) -> str:
        """The confidence as people read it."""
        return self.confidence.replace("from_memory", "recalled")


def measured(value: float, how: str) -> Sourced:
    """A figure that was measured today; ``how`` says by what, in the unit of the field that will hold it."""
    return Sourced(
        value, f"measured on {datetime.now(UTC).date()} by edge-harness devices probe: {how}", "measured"
    )


class Pool(Frozen):
    """RAM that engines share, or memory of an engine's own.

    Attributes:
        name: ``ram``, ``vram`` for a graphics card's, or the file's own word.
        is_own: Whether no other engine computes from it, as with a graphics card's; what is in RAM beside it is
            reached over a link.
        words: How people call it (``the NPU's memory``); empty for the usual words of RAM or a card.
        link_bytes_per_s: Of the link to it, one way; None for the usual one.
        usable_bytes: What one app may really hold by default (iOS limit, Android, macOS wired limit, idle
            use).
        entitled_bytes: The same with an entitlement or a setting an app's maker can ask for; None if there is
            none.
        bandwidth_bytes_per_s: Theoretical: transfers/s x bus width / 8.
        working_sets: Pairs (bytes that all cores go through again and again, bytes/s), measured, smallest
            first: where the speed falls the caches end. Empty where nobody measured.
    """

    name: PoolName
    technology: str
    total_bytes: Sourced
    usable_bytes: Sourced
    bandwidth_bytes_per_s: Sourced
    entitled_bytes: Sourced | None = None
    measured_read_bytes_per_s: Sourced | None = None
    working_sets: Curve = ()
    is_own: bool = False
    words: Annotated[str, Meta(max_length=60)] = ""
    link_bytes_per_s: Sourced | None = None

    def __post_init__(self) -> None:
        """A graphics card's memory is its own, also in a profile that was written before pools said so."""
        if self.name == CARD:
            msgspec.structs.force_setattr(self, "is_own", True)

    @property
    def called(self) -> str:
        """The pool as a noun: what a model's parts must find room in."""
        return self.words or ("the card's memory" if self.is_own else "memory one app may use")

    @property
    def place(self) -> str:
        """Where what lies in it lies: ``on the card``, ``in RAM``."""
        if self.words:
            return f"in {self.words}"
        return "on the card" if self.is_own else "in RAM"


class ComputeEngine(Frozen):
    """One thing on the device that multiplies matrices.

    Attributes:
        pool: The memory pool its weights lie in.
        apis: llama.cpp-class apis that run on it: ``cpu metal cuda rocm vulkan opencl npu``; first is usual.
        core_count: CPU cores or GPU cores/compute units; 0 where unknown.
        isa: Instruction sets that change the cost of dequantisation, names of ``harness.core.isa``; None
            where nobody tells them.
        peak_flops_per_s: Peak by dtype (``fp32 fp16 int8``), dense, without sparsity tricks.
        sustained_ratio: Share of burst speed kept after ten minutes; None where nobody measured.
        clock_ratio: Clock under a limit of power, over that without one.
    """

    kind: EngineKind
    name: str
    pool: PoolName
    apis: Annotated[tuple[Api, ...], Meta(min_length=1)]
    core_count: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    isa: tuple[str, ...] | None = None
    peak_flops_per_s: dict[str, Sourced] = {}
    sustained_ratio: Sourced | None = None
    clock_ratio: Annotated[float, Meta(gt=0, le=1)] = 1.0


class Storage(Frozen):
    """Where the weights rest: read speeds past the page cache, also while all threads compute, and of a mapped file."""

    technology: str
    sequential_read_bytes_per_s: Sourced
    mapped_read_bytes_per_s: Sourced | None = None
    busy_read_bytes_per_s: Sourced | None = None


class Power(Frozen):
    """Energy of the device, in the units that the fields name; None where a figure is unknown."""

    battery_joules: Sourced | None = None
    sustained_watts: Sourced | None = None
    peak_watts: Sourced | None = None


class TypeCost(Frozen):
    """What one quantisation type costs on one engine, as measured by timing it.

    Attributes:
        batch_seconds_per_byte: Pairs (tokens in the batch, seconds per weight byte) in growing order; the
            first is batch 1. The product with a tensor's bytes is the time of one matrix product of that
            batch.
        repacked: Whether the engine rewrites the weights at load (its copy then lies in anonymous memory).
        batch_seconds_per_row: The same for each weight row: beginning and ending its dot products. Empty for
            none.
        batch_seconds_per_product: The same for each matrix product: quantising its input, barriers. Empty for
            none.
        cached_ratios: Pairs (tokens in the batch, cost of a byte out of the cache over that of one out of
            memory).
        load_s_per_byte: Time of a byte in a load out of the page cache, mapped and rewritten; 0 where not
            measured.
    """

    type_name: str
    batch_seconds_per_byte: Curve
    repacked: bool = False
    batch_seconds_per_row: Curve = ()
    batch_seconds_per_product: Curve = ()
    cached_ratios: Curve = ()
    load_s_per_byte: Time = 0.0


class Calibration(Frozen):
    """An engine's own costs on this device, learnt from tiny synthetic models before any real one runs.

    Attributes:
        token_overhead_s: Fixed time of one forward pass.
        layer_overhead_s: Fixed time of one transformer layer (graph nodes, barriers).
        kv_read_bytes_per_s: Speed of reading an F16 KV cache in decode.
        attention_flops_per_s: Speed of attention products in prefill.
        token_layer_s: Time of one more token of a batch in one layer, whatever its width.
        attention_pair_s: Time of a query head and a position it looks back on, when few tokens do; 0: not
            measured.
        spread_ratio: Half-width, as a share of the middle, that held 90 % of repeated passes; 0 where not
            known.
        machine: Fingerprint of the machine it was measured on.
        disturbed_ratio: Share of the timings during which the machine was disturbed.
        link_bytes_per_s: Of weights that a long prompt copies to a GPU; 0 for the CPU, or too fast to tell.
        crossing_s: Time of one change from the GPU to the CPU and back within a pass, activations aside.
        process_anonymous_bytes: What the process holds before a model is loaded: interpreter, engine; 0: not
            measured.
        process_file_bytes: Code pages of the same once it has computed.
        cached_shares: Pairs (bytes that a pass reads, share of them that the caches give), smallest first.
        isa: Instruction sets that the engine was built with and found on this machine; None where it tells
            none.
    """

    api: str
    engine_version: str
    thread_count: Annotated[int, Meta(ge=1)]
    types: tuple[TypeCost, ...]
    token_overhead_s: Time
    layer_overhead_s: Time
    kv_read_bytes_per_s: Speed
    attention_flops_per_s: Speed
    token_layer_s: Amount = 0.0
    attention_pair_s: Time = 0.0
    spread_ratio: Amount = 0.0
    machine: str = ""
    disturbed_ratio: Amount = 0.0
    link_bytes_per_s: Amount = 0.0
    crossing_s: Amount = 0.0
    process_anonymous_bytes: Count = 0
    process_file_bytes: Count = 0
    cached_shares: Curve = ()
    isa: tuple[str, ...] | None = None


class Device(Frozen):
    """One phone, laptop, workstation or board, at stock clocks.

    Attributes:
        name: The stem of its file.
        os: Operating system the limits hold for.
        pools: Memory pools; ``ram`` always.
        engines: What can compute, best choice for language models first.
        calibrations: Costs measured on this very device (by ``devices probe``).
        doubts: What disturbed the machine while it was probed; empty for a profile to believe.
        machine: Fingerprint of the machine that was probed; empty for a device that others described.
        learned: File of what measurements taught of its speed (``learn``); empty for none.
        readings: How the name was read: what it was taken for, what else it means, what was derived from
            what.
        ignored: Words of the line it was named by that nobody here knows.
        card_shares: Of several cards, the part of what is split over them that each takes, in any unit; empty
            for one.
        cards: Of several cards, the device with each of them alone, in their order; empty for one.
    """

    name: str
    title: str
    kind: DeviceKind
    vendor: str
    chip: str
    os: OperatingSystem
    year: Annotated[int, Meta(ge=1990, le=2100)]
    pools: tuple[Pool, ...]
    engines: tuple[ComputeEngine, ...]
    storage: Storage
    power: Power = Power()
    calibrations: tuple[Calibration, ...] = ()
    notes: str = ""
    doubts: tuple[str, ...] = ()
    machine: str = ""
    learned: str = ""
    readings: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    card_shares: Annotated[tuple[Annotated[float, Meta(gt=0)], ...], Meta(max_length=MOST_CARDS)] = ()
    cards: Annotated[tuple["Device", ...], Meta(max_length=MOST_CARDS)] = ()

    @property
    def card_count(self) -> int:
        """Cards in it, alike or not."""
        return len(self.card_shares) or 1

    def pool(self, name: PoolName) -> Pool:
        """The memory pool of that name; KeyError where the device has none."""
        return {pool.name: pool for pool in self.pools}[name]

    @property
    def ram(self) -> Pool:
        """The pool that every device has."""
        return self.pool(RAM)

    @property
    def own_pool(self) -> Pool | None:
        """The memory of the best engine that has its own; None where all compute from RAM."""
        pools = {pool.name: pool for pool in self.pools if pool.is_own}
        return next((pools[engine.pool] for engine in self.engines if engine.pool in pools), None)

    @property
    def own_place(self) -> str:
        """Where the memory of an engine's own is, in words; empty where all compute from RAM."""
        return self.own_pool.place if self.own_pool else ""

    def pool_of(self, api: str) -> Pool:
        """The pool in which this api's buffers lie."""
        return self.pool(self.pool_for(api))

    def has_own_memory(self, api: str) -> bool:
        """Whether the engine that this api drives computes from memory of its own."""
        return self.pool_of(api).is_own

    def engine(self) -> ComputeEngine:
        """The best engine for language models."""
        return self.engines[0]

    def api(self, asked: str = "") -> str:
        """The api that is meant: the one asked for, else the usual one of the best engine."""
        return asked or self.engine().apis[0]

    def engine_for(self, api: str) -> ComputeEngine | None:
        """The engine that this api drives; None when the device has none."""
        return next((engine for engine in self.engines if api in engine.apis), None)

    def pool_for(self, api: str) -> PoolName:
        """The pool in which this api's buffers lie: ``ram`` unless its engine has memory of its own."""
        engine = self.engine_for(api)
        if engine:
            return engine.pool
        return RAM

    def calibration(self, api: str) -> Calibration | None:
        """Measured costs of that api, if this device was probed with it."""
        return next((c for c in self.calibrations if c.api == api), None)
