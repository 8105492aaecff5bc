"""The GPUs that the installed engine sees, asked in a child process: a driver must not live in this one."""

from harness.catalog.machine import CARD_IDLE_GIB
from harness.domain.device import Calibration, ComputeEngine, DeviceProfile, MemoryPool, measured
from harness.errors import EngineError
from harness.measure.child import Limits, run_child
from harness.runtimes.llamacpp.devices import GgmlDevice
from harness.runtimes.llamacpp.library import installed
from harness.units import GIB, format_bytes

SOFTWARE_FILL_BYTES = 12_000_000
"""Weights of a tiny model for a GPU that a driver on the CPU plays: it has no cache to exceed, and takes its time."""


def engine_devices(module: str = "") -> tuple[GgmlDevice, ...]:
    """Every device of the installed llama.cpp, none without it; EngineError where the engine or a driver died.

    ``module`` is that whose library is asked; empty for the first there is.
    """
    if not installed():
        return ()
    result = run_child("harness.runtimes.llamacpp.devices:tell", {"module": module}, limits=Limits(wall_s=120))
    if result.outcome != "ok":
        raise EngineError(f"the engine told no devices: {result.outcome}. {result.detail}")
    return tuple(GgmlDevice(**data) for name, data in result.events if name == "device")


def with_gpu(profile: DeviceProfile, gpu: GgmlDevice, costs: Calibration) -> DeviceProfile:
    """The profile with a GPU behind its CPU, which a run without an api uses: its pool, and its costs.

    Its bandwidth is what the runtime's own products of one token reached on tiny models.
    """
    speed = max(1 / cost.batch_seconds_per_byte[0][1] for cost in costs.types)
    bandwidth = measured(speed, f"through {gpu.api} by the engine's own kernels on tiny models")
    pools = profile.pools
    if gpu.kind == "gpu":  # an integrated one has no memory of its own
        told = f"as the driver of {gpu.name} reports it"
        held = gpu.total_bytes - gpu.free_bytes if gpu.free_bytes else 0
        idle = min(held, round(CARD_IDLE_GIB * GIB))  # what others held at the probe is not theirs for good
        free = f"{told}, less idle use; {format_bytes(held)} were held when it was probed"
        vram = MemoryPool(
            name="vram",
            technology="as measured",
            total_bytes=measured(gpu.total_bytes, told),
            usable_bytes=measured(gpu.total_bytes - idle, free),
            bandwidth_bytes_per_s=bandwidth,
            measured_read_bytes_per_s=bandwidth,
        )
        pools = (*(pool for pool in pools if pool.name != "vram"), vram)
    engine = ComputeEngine(
        kind="gpu", name=gpu.description, pool="vram" if gpu.kind == "gpu" else "ram", apis=(gpu.api,)
    )
    return profile.replace(
        pools=pools,
        engines=(*(e for e in profile.engines if gpu.api not in e.apis), engine),
        calibrations=(*(c for c in profile.calibrations if c.api != gpu.api), costs),
    )
