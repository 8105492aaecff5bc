"""What the installed engine is and sees, asked in a child process: a driver must not live in this one."""

from harness.core.base import Frozen
from harness.core.device import CARD, RAM, Calibration, ComputeEngine, Device, Pool, measured
from harness.core.errors import EngineError
from harness.core.isa import isa_of_engine
from harness.core.units import GIB
from harness.hardware.built import CARD_IDLE_GIB
from harness.measure.child import Limits, run_helper
from harness.runtimes.llamacpp.library import installed
from harness.runtimes.llamacpp.loaded_devices import GgmlDevice, TellJob


class Engine(Frozen):
    """What a llama.cpp says of itself: who brought it, its version, the variant it chose, what it was built with."""

    brought_by: str
    version: str
    variant: str
    build: str

    @property
    def isa(self) -> tuple[str, ...]:
        """Instruction sets that it uses here."""
        return isa_of_engine(self.build) or ()


def ask_engine(module: str = "", folder: str = "") -> tuple[Engine, tuple[GgmlDevice, ...]]:
    """What the library of a module, the first there is or the one in a folder says of itself, and its devices.

    Raises:
        EngineError: There is none, or it or a driver died.
        KeyboardInterrupt: Somebody ended it.
    """
    job = TellJob(module=module, folder=folder)
    result = run_helper("harness.runtimes.llamacpp.loaded_devices:tell", job, limits=Limits(wall_s=120))
    if result.outcome != "ok":
        raise EngineError(f"the engine told nothing of itself: {result.outcome}. {result.detail}")
    return result.told("engine", Engine)[0], tuple(GgmlDevice(**data) for data in result.told("device"))


def engine_devices(module: str = "") -> tuple[GgmlDevice, ...]:
    """Every device of the installed llama.cpp, or none without it, with the errors of :func:`ask_engine`."""
    if installed():
        return ask_engine(module)[1]
    return ()


def with_gpu(profile: Device, gpu: GgmlDevice, costs: Calibration) -> Device:
    """The profile with a GPU behind its CPU, which a run without an api uses: its pool, and its costs.

    Its bandwidth is what the runtime's own products of one token reached on tiny models.
    """
    speed = max(1 / cost.batch_seconds_per_byte[0][1] for cost in costs.types)
    bandwidth = measured(speed, f"through {gpu.api} by the engine's own kernels on tiny models")
    pools = profile.pools
    if gpu.kind == "gpu":  # an integrated one has no memory of its own
        told = f"as the driver of {gpu.name} reports it"
        held = gpu.total_bytes - (gpu.free_bytes or gpu.total_bytes)
        idle = min(held, round(CARD_IDLE_GIB * GIB))  # what others held at the probe is not theirs for good
        vram = Pool(
            name=CARD,
            technology="as measured",
            total_bytes=measured(gpu.total_bytes, told),
            usable_bytes=measured(gpu.total_bytes - idle, f"{told}, less idle use"),
            bandwidth_bytes_per_s=bandwidth,
            measured_read_bytes_per_s=bandwidth,
        )
        pools = (*(pool for pool in pools if pool.name != CARD), vram)
    engine = ComputeEngine(
        kind="gpu", name=gpu.description, pool=CARD if gpu.kind == "gpu" else RAM, apis=(gpu.api,)
    )
    return profile.replace(
        pools=pools,
        engines=(*(e for e in profile.engines if gpu.api not in e.apis), engine),
        calibrations=(*(c for c in profile.calibrations if c.api != gpu.api), costs),
    )
