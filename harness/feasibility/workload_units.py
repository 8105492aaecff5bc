"""What the units of a declared cost take: on the reference machine as measured, on any other by two ratios.

A device nobody probed runs interpreted and other scalar code by the ratio of published single-core scores, reads
memory and multiplies matrices as its profile says, and keeps the reference's ratio of cache to memory speed.
"""

import math
import re
from bisect import bisect_left
from functools import lru_cache
from importlib.resources import files
from typing import Final, NamedTuple

from msgspec.structs import replace

from harness.domain.device import DeviceProfile
from harness.domain.workload import UnitCosts

REFERENCE_SCORE: Final = 2050.0
"""Single-core score of the reference machine on the same scale: a Zen 4 server core at 3.7 GHz in a virtual machine,
taken from published scores of EPYC 9004 parts; assumed, not measured here."""

# As ``python -m harness.testing.unit_costs`` printed them there, quiet.
REFERENCE: Final = UnitCosts(
    machine="reference: 2 cores of an EPYC (Zen 4), CPython 3.11.7, numpy 2.4, ONNX Runtime 1.32",
    python_op_s=3.95e-9,
    native_call_s=2.0e-8,
    regex_char_s=1.45e-8,
    numpy_call_s=5.0e-7,
    element_s=2.43e-10,
    transcendental_s=7.8e-10,
    sort_step_s=4.1e-9,
    gather_s=2.1e-9,
    sql_statement_s=3.72e-6,
    sql_row_s=4.2e-7,
    commit_s=7.7e-6,
    session_call_s=4.6e-6,
    node_s=2.65e-7,
    product_rates=((16, 5.2e10), (64, 8.5e10), (128, 9.2e10), (256, 1.0e11), (512, 1.0e11), (1024, 9.9e10)),
    read_rates=(
        (1 << 18, 8.0e10),
        (1 << 20, 7.0e10),
        (1 << 22, 7.5e10),
        (1 << 24, 6.0e10),
        (1 << 25, 4.3e10),
        (1 << 28, 3.1e10),
    ),
)

_LAST_CACHE_BYTES: Final = {"phone": 8 << 20, "tablet": 8 << 20, "board": 2 << 20, "laptop": 16 << 20}
"""Last-level cache that one app can count on, by kind of device; others: 32 MiB. Typical of the class."""

_KIND_SCORES: Final = {"phone": 1700.0, "tablet": 1700.0, "board": 750.0, "laptop": 2300.0, "edge-server": 1300.0}


class SingleCore(NamedTuple):
    """Speed of one core on scalar code: a published score, and where it is from."""

    score: float
    source: str


@lru_cache(maxsize=1)
def _table() -> tuple[tuple[re.Pattern[str], SingleCore], ...]:
    text = (files("harness.feasibility") / "data" / "single_core.csv").read_text(encoding="utf-8")
    rows = [line.split(",", 2) for line in text.splitlines() if line and not line.startswith(("#", "pattern,"))]
    return tuple((re.compile(p), SingleCore(float(score), source)) for p, score, source in rows)


def single_core(device: DeviceProfile) -> SingleCore:
    """Single-core score of a device's best core, by the name of its chip or its cores; else of its kind."""
    cpu = next((e.name for e in device.engines if e.kind == "cpu"), "")
    name = f"{device.chip} | {cpu}".lower()
    for pattern, found in _table():
        if pattern.search(name):
            return found
    score = _KIND_SCORES.get(device.kind, REFERENCE_SCORE)
    return SingleCore(score, f"typical of a {device.kind}, assumed")


def scaled(device: DeviceProfile, serial_read_bytes_per_s: float) -> UnitCosts:
    """Unit costs of a device that nobody probed."""
    ratio = REFERENCE_SCORE / single_core(device).score
    last = _LAST_CACHE_BYTES.get(device.kind, 32 << 20)
    kept = [(size, rate / ratio) for size, rate in REFERENCE.read_rates[:-1] if size <= last // 2]
    reads = [(size, max(rate, serial_read_bytes_per_s)) for size, rate in kept]
    seconds = {
        name: getattr(REFERENCE, name) * ratio
        for name in REFERENCE.__struct_fields__
        if name.endswith("_s") and name != "flush_s"
    }
    return replace(
        REFERENCE,
        machine=device.name,
        product_rates=tuple((n, rate / ratio) for n, rate in REFERENCE.product_rates),
        read_rates=(*reads, (2 * last, serial_read_bytes_per_s)),
        **seconds,
    )


def at(table: tuple[tuple[int, float], ...], size: float) -> float:
    """The rate at a size: linear between the entries in the size's logarithm, constant beyond them."""
    sizes = [entry[0] for entry in table]
    high = bisect_left(sizes, size)
    if high == 0:
        return table[0][1]
    if high == len(table):
        return table[-1][1]
    (a, x), (b, y) = table[high - 1], table[high]
    share = math.log(size / a) / math.log(b / a)
    return x + share * (y - x)
