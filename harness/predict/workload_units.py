"""What the units of a declared cost take: on the reference machine as measured, on any other by two ratios.

A device nobody probed runs interpreted and other scalar code by the ratio of published single-core scores, reads
memory and multiplies matrices as its profile says, and keeps the reference's ratio of cache to memory speed.
"""

import math
from typing import Final

import numpy as np
from msgspec.structs import replace

from harness.domain.device import DeviceProfile
from harness.domain.workload import Rate, UnitCosts
from harness.predict.traits import first_cells

REFERENCE_SCORE: Final = 2600.0
"""Single-core score of the reference machine on the same scale: a Zen 5 server core in a virtual machine. Assumed, not
measured: 2050, from published scores of EPYC 9004 parts (Zen 4), times the ratio of the interpreter's instructions
a second on the two, 1.27."""

# As ``python -m bench.unit_costs`` printed them there, quiet.
REFERENCE: Final = UnitCosts(
    machine="reference: 2 cores of an EPYC (Zen 5), CPython 3.11.7, numpy 2.4, ONNX Runtime 1.32",
    python_op_s=3.95e-09,
    numpy_call_s=4e-07,
    array_step_s=1.2e-09,
    sql_statement_s=3.08e-06,
    flush_s=0.000142,
    session_call_s=3.14e-06,
    fresh_bytes_per_s=3.23e09,
    product_flops_per_s=1.3e11,
    engine_flops_per_s=2.55e11,
    engine_int8_flops_per_s=8.5e11,
    read_rates=((1 << 20, 1.05e11), (1 << 22, 9.96e10), (1 << 24, 8.8e10), (1 << 25, 4.94e10), (1 << 28, 3.78e10)),
    pass_rates=((1 << 20, 1.88e11), (1 << 22, 8.98e10), (1 << 24, 6.73e10), (1 << 26, 4.83e10), (3 << 26, 4.5e10)),
)

_LAST_CACHE_BYTES: Final = {"phone": 8 << 20, "tablet": 8 << 20, "board": 2 << 20, "laptop": 16 << 20}
"""Last-level cache that one app can count on, by kind of device; others: 32 MiB. Typical of the class."""

_KIND_SCORES: Final = {"phone": 1700.0, "tablet": 1700.0, "board": 750.0, "laptop": 2300.0, "edge-server": 1300.0}


def single_core(device: DeviceProfile) -> float:
    """Published score of a device's best core on scalar code, by chip or core name; else typical of its kind."""
    cpu = next((e.name for e in device.engines if e.kind == "cpu"), "")
    if found := first_cells("single_core.csv", f"{device.chip} | {cpu}".lower()):
        return float(found[0])
    return _KIND_SCORES.get(device.kind, REFERENCE_SCORE)


def scaled(device: DeviceProfile, serial_read_bytes_per_s: float, serial_flops_per_s: float) -> UnitCosts:
    """Unit costs of a device that nobody probed, from what one of its threads reads and its fp32 peak.

    Products reach the peak that the profile names; waits for a disk are the reference's.
    """
    ratio = REFERENCE_SCORE / single_core(device)
    peak_ratio = serial_flops_per_s / REFERENCE.engine_flops_per_s
    last = _LAST_CACHE_BYTES.get(device.kind, 32 << 20)
    memory = serial_read_bytes_per_s / REFERENCE.read_rates[-1][1]
    slower = ("python_op_s", "numpy_call_s", "array_step_s", "sql_statement_s", "session_call_s")
    return replace(
        REFERENCE,
        machine=device.name,
        fresh_bytes_per_s=REFERENCE.fresh_bytes_per_s / ratio,
        product_flops_per_s=serial_flops_per_s,
        engine_flops_per_s=serial_flops_per_s,
        engine_int8_flops_per_s=REFERENCE.engine_int8_flops_per_s * peak_ratio,
        read_rates=_cached(REFERENCE.read_rates, ratio, memory, last),
        pass_rates=_cached(REFERENCE.pass_rates, ratio, memory, last),
        **{name: getattr(REFERENCE, name) * ratio for name in slower},
    )


def _cached(table: tuple[Rate, ...], ratio: float, memory_ratio: float, last_bytes: int) -> tuple[Rate, ...]:
    """Rates by bytes: the core's ratio in what its caches hold, memory's beyond twice the last of them."""
    memory = table[-1][1] * memory_ratio
    kept = [(size, max(rate / ratio, memory)) for size, rate in table[:-1] if size <= last_bytes // 2]
    return (*kept, (2 * last_bytes, memory))


def at(table: tuple[Rate, ...], size: float) -> float:
    """The rate at a size: linear between the entries in the size's logarithm, constant beyond them."""
    sizes, rates = zip(*table, strict=True)
    return float(np.interp(math.log(size), np.log(sizes), rates))
