"""Latency of a workload's operation from its declared cost: rooflines of what streams, and counted steps beside them.

t = max(F / P s(n), M / W(w)) + A / U(u) + N / J + sum over kernels + sum over counted steps of count x unit + D / d

F FLOP of dense products, P their rate, s(n) = n / (n + c) the share of it that products of smallest dimension n reach
(c = 9 for numpy, 5 for ONNX Runtime, 16 in 8 bits: fitted once to rates of 8 to 1,024 on the reference machine, within
6 % for numpy); M bytes read in order, W the read bandwidth of a working set of w bytes; A bytes of passes over u
different bytes, U their rate; N bytes of new pages, J the rate at which they come; D bytes from storage. Counted steps
are those of single values of arrays, interpreted code, SQLite and calls (``UnitCosts``). A language model's passes come
from its own model of speed and are added. An operation that is not parallel gets one core's share of P and of W.

Sources: Williams et al. 2009, "Roofline"; counted abstract operations, each timed on a machine: Saavedra and Smith
1996, "Analysis of benchmark characteristics and benchmark performance prediction".
"""

from collections.abc import Callable, Iterable
from math import sqrt
from typing import Final

from harness.domain.base import Frozen
from harness.domain.device import DeviceProfile
from harness.domain.prediction import Interval
from harness.domain.workload import Cost, Kernel, Rate, UnitCosts
from harness.predict.workload_units import REFERENCE, at, scaled

SPEC_SHARE: Final = 0.54
"""Share of the theoretical bandwidth that CPU cores draw where nobody measured it: the median of published decode
speeds on x86 servers; Apple's CPU cores get 0.34 of their chip's, x86 clients 0.69."""

SERIAL_SHARE: Final = 0.6
"""Share of all cores' bandwidth that one thread draws where it was not measured."""

CACHE_FREE_FLOPS_PER_S: Final = 2.0e10
"""Peak of one CPU core where a profile gives none: 2 fused operations x 4 lanes x 2.5 GHz, NEON's least."""

_HALF_DIM: Final = {"numpy": 9, "fp32": 5, "int4": 5, "int8": 16}
"""Smallest dimension at which a product reaches half of its rate."""

_KERNEL_FLOPS: Final = {
    "product": 1.0,
    "convolution": 1.0,
    "vector": 1.0,
    "depthwise fp32": 0.7,
    "depthwise int8": 1.6,
    "pass": 0.0,
    "softmax": 42.0,
    "gelu": 99.0,
}
"""How many FLOP of a product take as long as one FLOP, or one value, of a kernel (ONNX Runtime 1.32, x86); of a
depthwise one the dimension is the side of its kernel."""

_REGEX_OPS: Final = 2.25
"""Bytecode instructions that take as long as a regular expression's look at one character."""

_DTYPE_RATIO: Final = {"fp32": 1.0, "fp16": 1.0, "int8": 3.0, "int4": 3.0}
"""Rate of products over fp32 where the profile names none for the dtype: fp16 is widened, int8 gains by the dot
product instructions that every core of the last years has."""

LanguageSeconds = Callable[[Cost], float]
"""Seconds that a language model takes for the tokens of a cost."""


class OperationPrediction(Frozen, frozen=True, kw_only=True):
    """What one operation should take.

    Attributes:
        limit: What takes most of it: ``compute``, ``memory``, ``engine``, ``arrays``, ``new pages``, ``interpreter``,
            ``numpy calls``, ``database``, ``engine calls``, ``language model`` or ``storage``.
        resident_bytes: Memory held while it runs, interpreter left out.
        basis: Where the units come from: ``probe`` of the machine, or ``profile`` of a device.
        parts_s: Seconds by cause; of ``compute`` and ``memory`` the longer counts, the rest adds up.
        mfu_ratio: FLOP of its dense products over what the peak would do in that time (of training: its MFU).
    """

    operation: str
    latency_s: Interval
    limit: str
    resident_bytes: int
    basis: str = "profile"
    parts_s: dict[str, float] = {}
    mfu_ratio: float = 0.0


class Rates(Frozen, frozen=True, kw_only=True):
    """Peak of dense products and memory bandwidth of a CPU's cores together and of one thread, and its counted steps.

    The interval is mid / spread to mid x spread; so many threads share cached passes; ``basis`` is ``probe`` or
    ``profile``.
    """

    flops_per_s: float
    read_bytes_per_s: float
    serial_flops_per_s: float
    serial_read_bytes_per_s: float
    storage_bytes_per_s: float
    spread_ratio: float = 1.5
    units: UnitCosts = REFERENCE
    thread_count: int = 1
    basis: str = "profile"


def rates_of(device: DeviceProfile, dtype: str = "fp32") -> Rates:
    """Rates of a device's CPU by its profile; by its own probe of units where it has one."""
    pool = device.pool("ram")
    measured = pool.measured_read_bytes_per_s
    bandwidth = measured.value if measured else SPEC_SHARE * pool.bandwidth_bytes_per_s.value
    cpu = next((e for e in device.engines if e.kind == "cpu"), None)
    cores = max(1, cpu.core_count if cpu else 1)
    peaks = cpu.peak_flops_per_s if cpu else {}
    fp32 = peaks["fp32"].value if "fp32" in peaks else CACHE_FREE_FLOPS_PER_S * cores
    peak = peaks[dtype].value if dtype in peaks else fp32 * _DTYPE_RATIO.get(dtype, 1.0)
    serial = bandwidth * (SERIAL_SHARE if cores > 1 else 1.0)
    units = scaled(device, serial, fp32 / cores)
    return Rates(
        flops_per_s=peak,
        read_bytes_per_s=bandwidth,
        serial_flops_per_s=peak / cores,
        serial_read_bytes_per_s=serial,
        storage_bytes_per_s=device.storage.sequential_read_bytes_per_s.value,
        spread_ratio=1.5 if measured else 2.0,
        units=units,
        thread_count=cores,
    )


def rates_here(units: UnitCosts, *, thread_count: int, core_count: int, read_bytes_per_s: float) -> Rates:
    """Rates of a machine whose units one thread just probed; its threads read ``read_bytes_per_s`` together."""
    peak = units.product_flops_per_s
    threads = min(thread_count, core_count)
    return Rates(
        flops_per_s=peak * threads,
        read_bytes_per_s=read_bytes_per_s,
        serial_flops_per_s=peak,
        serial_read_bytes_per_s=units.read_rates[-1][1],
        storage_bytes_per_s=1e9,
        spread_ratio=1.35,
        units=units,
        thread_count=threads,
        basis="probe",
    )


def predict_operation(cost: Cost, rates: Rates, language: LanguageSeconds | None = None) -> OperationPrediction:
    """Latency of one operation; ValueError where it needs a language model and none is given."""
    if language is None and (cost.prefill_tokens_count or cost.decode_steps_count):
        raise ValueError(f"{cost.operation} runs a language model: its speed is needed")
    units = rates.units
    spoken_s = language(cost) if language and (cost.prefill_tokens_count or cost.decode_steps_count) else 0.0
    peak = rates.flops_per_s if cost.parallel else rates.serial_flops_per_s
    parts = {
        "compute": cost.flops_count / (peak * _share(cost.product_dim, _HALF_DIM["numpy"])),
        "memory": cost.moved_bytes / _read_rate(cost.working_set_bytes, rates, is_parallel=cost.parallel),
        "engine": sum(_kernel_s(k, rates, is_parallel=cost.parallel) for k in cost.kernels),
        "arrays": cost.pass_bytes / _by_set(units.pass_rates, cost.pass_set_bytes)
        + cost.array_steps_count * units.array_step_s,
        "new pages": cost.fresh_bytes / units.fresh_bytes_per_s,
        "interpreter": (cost.python_ops_count + _REGEX_OPS * cost.regex_chars_count) * units.python_op_s,
        "numpy calls": cost.numpy_calls_count * units.numpy_call_s,
        "database": cost.sql_statements_count * units.sql_statement_s,
        "engine calls": cost.session_calls_count * units.session_call_s,
        "language model": spoken_s,
        "storage": cost.disk_read_bytes / rates.storage_bytes_per_s + cost.flushes_count * units.flush_s,
    }
    mid = max(parts["compute"], parts["memory"]) + sum(v for k, v in parts.items() if k not in {"compute", "memory"})
    ends = [mid + parts["interpreter"] * (op_s / units.python_op_s - 1) for op_s in units.python_op_range_s or ()]
    return OperationPrediction(
        operation=cost.operation,
        latency_s=Interval(
            mid=mid, low=min([mid, *ends]) / rates.spread_ratio, high=max([mid, *ends]) * rates.spread_ratio
        ),
        limit=max(parts, key=lambda name: parts[name]),
        resident_bytes=cost.resident_bytes + cost.file_bytes,
        basis=rates.basis,
        parts_s={k: v for k, v in parts.items() if v},
        mfu_ratio=cost.flops_count / (mid * peak) if mid else 0.0,
    )


def predict_workload(
    costs: Iterable[Cost], device: DeviceProfile, language: LanguageSeconds | None = None
) -> tuple[OperationPrediction, ...]:
    """Latency of every operation on a device."""
    return tuple(predict_operation(c, rates_of(device, c.dtype), language) for c in costs)


def _share(dim: int, half_dim: int) -> float:
    return dim / (dim + half_dim) if dim else 1.0


def _read_rate(set_bytes: float, rates: Rates, *, is_parallel: bool) -> float:
    """Bandwidth of a working set: memory's where it is unknown or larger than what the caches hold."""
    table = rates.units.read_rates
    memory = rates.read_bytes_per_s if is_parallel else rates.serial_read_bytes_per_s
    # A cache holds what is read at more than the geometric mean of its best rate and memory's. The last one is shared:
    # more threads do not make it larger.
    middle = sqrt(max(rate for _, rate in table) * table[-1][1])
    held_bytes = max((size for size, rate in table if rate > middle), default=0)
    if not 0 < set_bytes <= held_bytes:
        return memory
    return max(memory, at(table, set_bytes) * (rates.thread_count if is_parallel else 1))


def _by_set(table: tuple[Rate, ...], set_bytes: float) -> float:
    """Bytes/s of one thread over so many different bytes; memory's where they are unknown."""
    return at(table, set_bytes) if set_bytes else table[-1][1]


def _kernel_s(kernel: Kernel, rates: Rates, *, is_parallel: bool) -> float:
    """Seconds of engine kernels: arithmetic, and the time to bring its operands.

    A matrix by one vector takes the longer of arithmetic and reading the matrix. What makes one value of another
    (softmax, gelu) does nothing else than move, so its arithmetic holds the traffic.
    """
    flops = _KERNEL_FLOPS.get(kernel.kind, _KERNEL_FLOPS.get(f"{kernel.kind} {kernel.dtype}"))
    if flops is None or kernel.dtype not in _HALF_DIM:
        raise ValueError(f"no kernel '{kernel.kind} {kernel.dtype}'; there are {', '.join(_KERNEL_FLOPS)}")
    units, threads = rates.units, rates.thread_count if is_parallel else 1
    is_int8 = kernel.dtype == "int8" and kernel.kind != "vector"
    peak = units.engine_int8_flops_per_s if is_int8 else units.engine_flops_per_s
    own_s = kernel.flops_count * flops / (peak * _share(kernel.dim, _HALF_DIM[kernel.dtype]) * threads)
    if kernel.kind == "vector":
        return max(own_s, kernel.moved_bytes / _read_rate(kernel.moved_bytes, rates, is_parallel=is_parallel))
    traffic_s = kernel.moved_bytes / (_by_set(units.pass_rates, kernel.working_set_bytes) * threads)
    return max(own_s, traffic_s) if kernel.kind in {"softmax", "gelu"} else own_s + traffic_s
