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
from harness.domain.workload import Rate, UnitCosts

REFERENCE_SCORE: Final = 2600.0
"""Single-core score of the reference machine on the same scale: a Zen 5 server core in a virtual machine. Assumed, not
measured: 2050, from published scores of EPYC 9004 parts (Zen 4), times the ratio of the interpreter's instructions
a second on the two, 1.27."""

# As ``python -m bench.unit_costs`` printed them there, quiet.
REFERENCE: Final = UnitCosts(
    machine="reference: 2 cores of an EPYC (Zen 5), CPython 3.11.7, numpy 2.4, ONNX Runtime 1.32",
    python_op_s=3.95e-09,
    native_call_s=1.51e-08,
    regex_call_s=1.16e-07,
    regex_char_s=8.89e-09,
    numpy_call_s=4e-07,
    transcendental_s=5.89e-10,
    sort_step_s=5.79e-10,
    stable_sort_step_s=4.01e-09,
    partition_value_s=1.19e-09,
    scan_value_s=2.94e-09,
    gather_s=1.28e-09,
    fft_step_s=3.26e-10,
    sql_statement_s=3.08e-06,
    sql_row_s=2.73e-07,
    commit_s=3.74e-06,
    log_byte_s=4.91e-10,
    text_term_s=4.35e-06,
    checkpoint_s=0.000449,
    checkpoint_byte_s=3.77e-09,
    flush_s=0.000142,
    session_call_s=3.14e-06,
    node_s=2.01e-07,
    product_rates=(
        (8, 5.7e10),
        (16, 8.16e10),
        (64, 1.14e11),
        (128, 1.24e11),
        (256, 1.3e11),
        (512, 1.3e11),
        (1024, 1.3e11),
    ),
    read_rates=(
        (262144, 7.03e10),
        (1048576, 1.05e11),
        (4194304, 9.96e10),
        (8388608, 9.57e10),
        (16777216, 8.8e10),
        (33554432, 4.94e10),
        (268435456, 3.78e10),
    ),
    matrix_rates=(
        (262144, 8.79e10),
        (1048576, 1.01e11),
        (4194304, 8.9e10),
        (8388608, 9.11e10),
        (16777216, 8.2e10),
        (33554432, 4.43e10),
        (268435456, 3.68e10),
    ),
    pass_rates=(
        (131072, 2.09e11),
        (524288, 2.32e11),
        (1048576, 1.88e11),
        (4194304, 8.98e10),
        (16777216, 6.73e10),
        (67108864, 4.83e10),
        (201326592, 4.5e10),
    ),
    block_rates=((4194304, 6.48e11), (16777216, 1.75e11), (33554432, 1.85e10), (67108864, 1.54e10)),
    fresh_rates=((1048576, 3.23e09), (8388608, 1.04e10), (50331648, 1.93e10)),
    engine_rates={
        "product fp32": ((16, 2.44e11), (64, 2.6e11), (256, 2.53e11)),
        "product int8": ((16, 7.38e11), (64, 8.42e11), (256, 8.52e11)),
        "product int4": ((256, 2.55e11),),
        "convolution fp32": ((16, 2.06e11), (64, 2.65e11), (192, 2.67e11)),
        "convolution int8": ((16, 2.74e11), (64, 7.55e11), (192, 9.17e11)),
        "depthwise fp32": ((3, 1.35e11), (5, 1.97e11)),
        "depthwise int8": ((3, 8.47e10), (5, 1.06e11)),
        "pass fp32": ((0, 1.24e10),),
        "softmax fp32": ((0, 6.05e09),),
        "gelu fp32": ((0, 2.58e09),),
        "vector int8": ((1254528, 1.49e11), (19170432, 1.13e11), (42910848, 6.36e10)),
        "vector int4": ((696960, 1.86e11), (10650240, 2.02e11), (42271360, 9.16e10)),
        "vector fp32": ((1478656, 4.89e10), (9834496, 4.92e10), (52301824, 2.03e10)),
    },
)

_LAST_CACHE_BYTES: Final = {"phone": 8 << 20, "tablet": 8 << 20, "board": 2 << 20, "laptop": 16 << 20}
"""Last-level cache that one app can count on, by kind of device; others: 32 MiB. Typical of the class."""

_OF_STORAGE: Final = {"flush_s", "checkpoint_s", "checkpoint_byte_s"}
"""Units that hang on the disk, not on the processor."""

_KIND_SCORES: Final = {"phone": 1700.0, "tablet": 1700.0, "board": 750.0, "laptop": 2300.0, "edge-server": 1300.0}


class SingleCore(NamedTuple):
    """Speed of one core on scalar code: a published score, and where it is from."""

    score: float
    source: str


@lru_cache(maxsize=1)
def _table() -> tuple[tuple[re.Pattern[str], SingleCore], ...]:
    text = (files("harness.predict") / "data" / "single_core.csv").read_text(encoding="utf-8")
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


def scaled(device: DeviceProfile, serial_read_bytes_per_s: float, serial_flops_per_s: float) -> UnitCosts:
    """Unit costs of a device that nobody probed, from what one of its threads reads and its fp32 peak."""
    ratio = REFERENCE_SCORE / single_core(device).score
    last = _LAST_CACHE_BYTES.get(device.kind, 32 << 20)
    seconds = {
        name: getattr(REFERENCE, name) * ratio
        for name in REFERENCE.__struct_fields__
        if name.endswith("_s") and name not in _OF_STORAGE
    }
    memory = serial_read_bytes_per_s / REFERENCE.read_rates[-1][1]
    return replace(
        REFERENCE,
        machine=device.name,
        product_rates=_slower(REFERENCE.product_rates, ratio),
        read_rates=_cached(REFERENCE.read_rates, ratio, memory, last),
        matrix_rates=_cached(REFERENCE.matrix_rates, ratio, memory, last),
        pass_rates=_cached(REFERENCE.pass_rates, ratio, memory, last),
        block_rates=_cached(REFERENCE.block_rates, ratio, memory, last),
        fresh_rates=_slower(REFERENCE.fresh_rates, ratio),
        engine_rates=_engine(ratio, memory, last, serial_flops_per_s),
        **seconds,
    )


def _slower(table: tuple[Rate, ...], ratio: float) -> tuple[Rate, ...]:
    return tuple((size, rate / ratio) for size, rate in table)


def _cached(table: tuple[Rate, ...], ratio: float, memory_ratio: float, last_bytes: int) -> tuple[Rate, ...]:
    """Rates by bytes: the core's ratio in what its caches hold, memory's beyond twice the last of them."""
    memory = table[-1][1] * memory_ratio
    kept = [(size, max(rate / ratio, memory)) for size, rate in table[:-1] if size <= last_bytes // 2]
    return (*kept, (2 * last_bytes, memory))


def _engine(
    ratio: float, memory_ratio: float, last_bytes: int, serial_flops_per_s: float
) -> dict[str, tuple[Rate, ...]]:
    """Products keep the reference's share of a core's peak; one vector goes with the memory where no cache helps."""
    whole = max(rate for _, rate in REFERENCE.engine_rates["product fp32"])
    slower = whole / serial_flops_per_s
    found: dict[str, tuple[Rate, ...]] = {}
    for name, table in REFERENCE.engine_rates.items():
        if name.startswith("vector"):
            small, large = table[0], table[-1]
            found[name] = (
                (min(small[0], last_bytes // 2), small[1] / ratio),
                (2 * last_bytes, min(small[1] / ratio, large[1] * memory_ratio)),
            )
        else:
            found[name] = _slower(table, ratio if name.startswith(("pass", "softmax", "gelu")) else slower)
    return found


def at(table: tuple[Rate, ...], size: float) -> float:
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
