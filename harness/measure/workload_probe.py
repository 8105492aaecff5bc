"""Probe what the units of a declared cost take here, in a child with the settings of the run it serves."""

import os
import platform
from typing import Final

import msgspec

from harness.domain.workload import UnitCosts
from harness.errors import CouldNotRunError
from harness.measure.bandwidth import read_bandwidth
from harness.measure.child import Limits, run_child
from harness.measure.machine import fingerprint
from harness.measure.workload_runner import THREAD_VARIABLES

TARGET: Final = "harness.measure._unit_child:probe_units"
_BANDWIDTH_BYTES: Final = 256 << 20


def probe_units(*, engine: bool = False) -> UnitCosts:
    """Unit costs of this machine, one thread, in about two seconds.

    Args:
        engine: Also time ONNX Runtime; it and ``onnx``, which makes its graphs, must be installed.

    Raises:
        CouldNotRunError: The probe failed.
    """
    label = f"{fingerprint().fingerprint} {platform.python_implementation()} {platform.python_version()}"
    arguments = {"machine": label, "engine": engine}
    result = run_child(TARGET, arguments, limits=Limits(wall_s=120.0), environment=dict.fromkeys(THREAD_VARIABLES, "1"))
    told = dict(result.events)
    if "units" not in told:
        raise CouldNotRunError(f"the probe of unit costs ended as {result.outcome}: {result.detail}")
    return msgspec.convert(told["units"], UnitCosts)


def bandwidth_of(thread_count: int) -> float:
    """Read bandwidth of that many threads together, bytes/s."""
    return read_bandwidth(thread_count, _BANDWIDTH_BYTES, pass_count=3).bytes_per_s


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
