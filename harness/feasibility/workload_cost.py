"""Latency of a workload's operation from its declared cost: a roofline and a fixed overhead.

t = max(F / P, M / W) + D / R + h

F floating-point operations, P the peak of the CPU for their dtype, M bytes moved, W the read bandwidth, D bytes read
from storage, R its speed, h the fixed cost of a call (interpreter). A serial operation gets one core's share of P and
the bandwidth one thread can draw. Source: Williams et al. 2009, "Roofline".
"""

from collections.abc import Iterable
from typing import Final

from harness.domain.base import Frozen
from harness.domain.device import DeviceProfile
from harness.domain.prediction import Interval
from harness.domain.workload import Cost

SPEC_SHARE: Final = 0.54
"""Share of the theoretical bandwidth that CPU cores draw where nobody measured it: the median of published decode
speeds on x86 servers; Apple's CPU cores get 0.34 of their chip's, x86 clients 0.69."""

SERIAL_SHARE: Final = 0.6
"""Share of all cores' bandwidth that one thread draws where it was not measured."""

OVERHEAD_RATIO: Final = {"phone": 1.2, "tablet": 1.0, "board": 3.0, "edge-server": 1.5}
"""Time of interpreted code against the reference machine (a 2020s x86 server core), by kind of device; others: 1.
Assumed, not measured, hence the wide interval."""

CACHE_FREE_FLOPS_PER_S: Final = 2.0e10
"""Peak of one CPU core where a profile gives none: 2 fused operations x 4 lanes x 2.5 GHz, NEON's least."""


class OperationPrediction(Frozen, frozen=True, kw_only=True):
    """What one operation should take.

    Attributes:
        operation: Its name.
        latency_s: Time of one call.
        limit: What takes most of it: ``compute``, ``memory``, ``storage`` or ``overhead``.
        resident_bytes: Memory held while it runs, interpreter left out.
    """

    operation: str
    latency_s: Interval
    limit: str
    resident_bytes: int


class Rates(Frozen, frozen=True, kw_only=True):
    """What a CPU does: all cores together, and one thread alone."""

    flops_per_s: float
    read_bytes_per_s: float
    serial_flops_per_s: float
    serial_read_bytes_per_s: float
    storage_bytes_per_s: float
    overhead_ratio: float = 1.0
    spread_ratio: float = 1.5


def rates_of(device: DeviceProfile, dtype: str = "fp32") -> Rates:
    """Rates of a device's CPU by its profile."""
    pool = device.pool("ram")
    measured = pool.measured_read_bytes_per_s
    bandwidth = measured.value if measured else SPEC_SHARE * pool.bandwidth_bytes_per_s.value
    cpu = next((e for e in device.engines if e.kind == "cpu"), None)
    cores = max(1, cpu.core_count if cpu else 1)
    peaks = cpu.peak_flops_per_s if cpu else {}
    peak = peaks[dtype].value if dtype in peaks else CACHE_FREE_FLOPS_PER_S * cores
    return Rates(
        flops_per_s=peak,
        read_bytes_per_s=bandwidth,
        serial_flops_per_s=peak / cores,
        serial_read_bytes_per_s=bandwidth * (SERIAL_SHARE if cores > 1 else 1.0),
        storage_bytes_per_s=device.storage.sequential_read_bytes_per_s.value,
        overhead_ratio=OVERHEAD_RATIO.get(device.kind, 1.0),
        spread_ratio=1.5 if measured else 2.0,
    )


def predict_operation(cost: Cost, rates: Rates) -> OperationPrediction:
    """Latency of one operation."""
    flops = rates.flops_per_s if cost.parallel else rates.serial_flops_per_s
    bandwidth = rates.read_bytes_per_s if cost.parallel else rates.serial_read_bytes_per_s
    parts = {
        "compute": cost.flops_count / flops,
        "memory": cost.moved_bytes / bandwidth,
        "storage": cost.disk_read_bytes / rates.storage_bytes_per_s if cost.disk_read_bytes else 0.0,
        "overhead": cost.call_overhead_s * rates.overhead_ratio,
    }
    mid = max(parts["compute"], parts["memory"]) + parts["storage"] + parts["overhead"]
    return OperationPrediction(
        operation=cost.operation,
        latency_s=Interval(mid=mid, low=mid / rates.spread_ratio, high=mid * rates.spread_ratio),
        limit=max(parts, key=lambda name: parts[name]),
        resident_bytes=cost.resident_bytes + cost.file_bytes,
    )


def predict_workload(costs: Iterable[Cost], device: DeviceProfile) -> tuple[OperationPrediction, ...]:
    """Latency of every operation on a device."""
    return tuple(predict_operation(c, rates_of(device, c.dtype)) for c in costs)
