"""Run a model as if on a device: held to the memory an app may use there, on no more cores than it has.

What is emulated: the memory limit (a control group where one can be made) and the number of threads. What is not: the
device's bandwidth, instruction sets, clock, storage, GPU and NPU, heat, and what its system does under pressure (a
phone kills, a laptop swaps).
"""

from typing import Final, NamedTuple

from harness.domain.device import DeviceProfile
from harness.errors import RefusedError
from harness.predict.verdict import available_bytes_of
from harness.runtimes._threads import default_thread_count
from harness.units import format_bytes

NOT_EMULATED: Final = (
    "memory bandwidth",
    "instruction sets and clock",
    "storage",
    "GPU and NPU",
    "heat",
    "the system's own behaviour under memory pressure",
)


class Emulation(NamedTuple):
    """What of a device is imposed on a run here; threads are at most its cores, and those of here."""

    memory_limit_bytes: int
    thread_count: int


def emulation_of(device: DeviceProfile, memory_bytes: int | None = None) -> Emulation:
    """What of ``device`` can be imposed here, with less memory where ``memory_bytes`` says so.

    Raises:
        RefusedError: More memory than the device gives.
    """
    usable = available_bytes_of(device.pool("ram"), entitled=False)
    if memory_bytes and memory_bytes > usable:
        expected = f"at most the {format_bytes(usable)} of one app on {device.name}"
        raise RefusedError(f"--memory-limit: found {format_bytes(memory_bytes)}, expected {expected}")
    cores = next((e.core_count for e in device.engines if e.kind == "cpu"), 0)
    here = default_thread_count()
    return Emulation(memory_bytes or usable, min(cores or here, here))
