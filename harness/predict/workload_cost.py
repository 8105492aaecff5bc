"""Latency of a workload's operation from its declared cost: rooflines of what streams, and counted steps beside them.

t = max(F / P(n), M / W(w)) + B / G(w) + sum over kernels of f / p(kind, n) + m / V(w)
    + A / U(u) + N / J(j) + sum over counted steps of count x unit + D / d + h

F FLOP of dense products, P the rate that products of smallest dimension n reach; M bytes read in order, W the read
bandwidth of a working set of w bytes; B bytes of matrices by one vector, G the rate of that; A bytes of passes over u
different bytes, U their rate; N bytes of new pages in arrays of j bytes, J the rate at which they come; of each
kernel of an inference engine f FLOP, m bytes, p the engine's rate and V the rate of passes, between memory's and a
cache's; D bytes from storage; h what no count names. Counted steps are those of sorting, gathers, functions,
interpreted code, SQLite and calls (``UnitCosts``). A language model's passes come from its own model of speed and are
added. An operation that is not parallel gets one core's share of P and what one thread can draw of W.

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

_WITH_PRODUCTS: Final = {"product", "convolution", "depthwise"}

_DTYPE_RATIO: Final = {"fp32": 1.0, "fp16": 1.0, "int8": 3.0, "int4": 3.0}
"""Rate of products over fp32 where the profile names none for the dtype: fp16 is widened, int8 gains by the dot
product instructions that every core of the last years has."""

LanguageSeconds = Callable[[Cost], float]
"""Seconds that a language model takes for the tokens of a cost."""


class OperationPrediction(Frozen, frozen=True, kw_only=True):
    """What one operation should take.

    Attributes:
        operation: Its name.
        latency_s: Time of one call.
        limit: What takes most of it: ``compute``, ``memory``, ``engine``, ``arrays``, ``new pages``, ``interpreter``,
            ``numpy calls``, ``database``, ``engine calls``, ``language model``, ``storage`` or ``overhead``.
        resident_bytes: Memory held while it runs, interpreter left out.
        basis: Where the units come from: ``probe`` of the machine, or ``profile`` of a device.
        parts_s: Seconds by cause; of ``compute`` and ``memory`` the longer counts, the rest adds up.
    """

    operation: str
    latency_s: Interval
    limit: str
    resident_bytes: int
    basis: str = "profile"
    parts_s: dict[str, float] = {}


class Rates(Frozen, frozen=True, kw_only=True):
    """What a CPU does: all cores together, one thread alone, and what each counted step takes.

    Attributes:
        flops_per_s: Peak of dense products, all cores used.
        read_bytes_per_s: Memory bandwidth, all cores used.
        serial_flops_per_s: Peak of one thread.
        serial_read_bytes_per_s: Memory bandwidth of one thread.
        storage_bytes_per_s: Storage.
        overhead_ratio: Time of what no count names, against the reference machine.
        spread_ratio: The interval is mid / spread to mid x spread.
        units: What each step takes.
        thread_count: Threads that share cached passes.
        basis: ``probe`` or ``profile``.
    """

    flops_per_s: float
    read_bytes_per_s: float
    serial_flops_per_s: float
    serial_read_bytes_per_s: float
    storage_bytes_per_s: float
    overhead_ratio: float = 1.0
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
        overhead_ratio=units.python_op_s / REFERENCE.python_op_s,
        spread_ratio=1.5 if measured else 2.0,
        units=units,
        thread_count=cores,
    )


def rates_here(units: UnitCosts, *, thread_count: int, core_count: int, read_bytes_per_s: float) -> Rates:
    """Rates of a machine whose units were just probed.

    Args:
        units: As probed with one thread.
        thread_count: Threads that a parallel operation gets.
        core_count: Cores there are.
        read_bytes_per_s: Memory bandwidth of those threads together.
    """
    peak = max(rate for _, rate in units.product_rates)
    threads = min(thread_count, core_count)
    return Rates(
        flops_per_s=peak * threads,
        read_bytes_per_s=read_bytes_per_s,
        serial_flops_per_s=peak,
        serial_read_bytes_per_s=units.read_rates[-1][1],
        storage_bytes_per_s=1e9,
        overhead_ratio=units.python_op_s / REFERENCE.python_op_s,
        spread_ratio=1.35,
        units=units,
        thread_count=threads,
        basis="probe",
    )


def predict_operation(cost: Cost, rates: Rates, language: LanguageSeconds | None = None) -> OperationPrediction:
    """Latency of one operation.

    Raises:
        ValueError: It needs a language model and none is given.
    """
    if language is None and (cost.prefill_tokens_count or cost.decode_steps_count):
        raise ValueError(f"{cost.operation} runs a language model: its speed is needed")
    units = rates.units
    spoken_s = language(cost) if language and (cost.prefill_tokens_count or cost.decode_steps_count) else 0.0
    fresh_rate = at(units.fresh_rates, cost.fresh_array_bytes or 1)
    parts = {
        "compute": cost.flops_count / _product_rate(cost, rates) if cost.flops_count else 0.0,
        "memory": _streams_s(cost, rates),
        "engine": sum(_kernel_s(k, rates, is_parallel=cost.parallel) for k in cost.kernels),
        "arrays": cost.pass_bytes / _by_set(units.pass_rates, cost.pass_set_bytes)
        + cost.block_bytes / _by_set(units.block_rates, cost.block_set_bytes)
        + cost.transcendentals_count * units.transcendental_s
        + cost.sort_steps_count * units.sort_step_s
        + cost.stable_sort_steps_count * units.stable_sort_step_s
        + cost.partition_values_count * units.partition_value_s
        + cost.scan_values_count * units.scan_value_s
        + cost.gathers_count * units.gather_s
        + cost.fft_steps_count * units.fft_step_s,
        "new pages": cost.fresh_bytes / fresh_rate,
        "interpreter": cost.python_ops_count * units.python_op_s
        + cost.native_calls_count * units.native_call_s
        + cost.regex_calls_count * units.regex_call_s
        + cost.regex_chars_count * units.regex_char_s,
        "numpy calls": cost.numpy_calls_count * units.numpy_call_s,
        "database": cost.sql_statements_count * units.sql_statement_s
        + cost.sql_rows_count * units.sql_row_s
        + cost.commits_count * units.commit_s
        + cost.log_bytes * units.log_byte_s
        + cost.text_terms_count * units.text_term_s,
        "engine calls": cost.session_calls_count * units.session_call_s + cost.nodes_count * units.node_s,
        "language model": spoken_s,
        "storage": cost.disk_read_bytes / rates.storage_bytes_per_s
        + cost.checkpoints_count * units.checkpoint_s
        + cost.checkpoint_bytes * units.checkpoint_byte_s
        + cost.flushes_count * units.flush_s,
        "overhead": cost.call_overhead_s * rates.overhead_ratio,
    }
    streamed = max(parts["compute"], parts["memory"])
    mid = streamed + sum(v for k, v in parts.items() if k not in {"compute", "memory"})
    return OperationPrediction(
        operation=cost.operation,
        latency_s=Interval(mid=mid, low=mid / rates.spread_ratio, high=mid * rates.spread_ratio),
        limit=max(parts, key=lambda name: parts[name]),
        resident_bytes=cost.resident_bytes + cost.file_bytes,
        basis=rates.basis,
        parts_s={k: v for k, v in parts.items() if v},
    )


def predict_workload(
    costs: Iterable[Cost], device: DeviceProfile, language: LanguageSeconds | None = None
) -> tuple[OperationPrediction, ...]:
    """Latency of every operation on a device."""
    return tuple(predict_operation(c, rates_of(device, c.dtype), language) for c in costs)


def _product_rate(cost: Cost, rates: Rates) -> float:
    """Peak x the share of it that products of that smallest dimension reach."""
    peak = rates.flops_per_s if cost.parallel else rates.serial_flops_per_s
    table = rates.units.product_rates
    share = at(table, cost.product_dim) / max(rate for _, rate in table) if cost.product_dim else 1.0
    return peak * share


def _streams_s(cost: Cost, rates: Rates) -> float:
    """Seconds of what is read in order, and of matrices by one vector."""
    reads, matrices = rates.units.read_rates, rates.units.matrix_rates
    # No thread reads a matrix faster than it reads in order; what a matrix's order costs holds for all threads alike.
    memory = rates.read_bytes_per_s if cost.parallel else rates.serial_read_bytes_per_s
    by_matrix = memory * min(1.0, matrices[-1][1] / reads[-1][1])
    read_s = cost.moved_bytes / _cached(reads, memory, cost, rates) if cost.moved_bytes else 0.0
    return read_s + (cost.matrix_bytes / _cached(matrices, by_matrix, cost, rates) if cost.matrix_bytes else 0.0)


def _cached(table: tuple[Rate, ...], memory: float, cost: Cost, rates: Rates) -> float:
    """Bandwidth of the working set: memory's where it is unknown or larger than any cache."""
    if not cost.working_set_bytes or (cost.parallel and cost.working_set_bytes > table[-2][0]):
        return memory  # the last-level cache is shared: more threads do not make it larger
    return max(memory, at(table, cost.working_set_bytes) * (rates.thread_count if cost.parallel else 1))


def _by_set(table: tuple[Rate, ...], set_bytes: float) -> float:
    """Bytes/s of one thread over so many different bytes; memory's where they are unknown."""
    return at(table, set_bytes) if set_bytes else table[-1][1]


def _held_bytes(table: tuple[Rate, ...]) -> int:
    """Bytes that a cache keeps: the largest entry read at more than the geometric mean of best and memory's rate."""
    middle = sqrt(max(rate for _, rate in table) * table[-1][1])
    return max((size for size, rate in table if rate > middle), default=0)


def _kernel_s(kernel: Kernel, rates: Rates, *, is_parallel: bool) -> float:
    """Seconds of engine kernels: arithmetic on what a cache holds, and the time to bring that there."""
    name = f"{kernel.kind} {kernel.dtype}"
    table = rates.units.engine_rates.get(name) or REFERENCE.engine_rates.get(name)
    if table is None:
        raise ValueError(f"no kernel {name!r}; there are {', '.join(REFERENCE.engine_rates)}")
    threads = rates.thread_count if is_parallel else 1
    if kernel.kind == "vector":
        # Its table is by the bytes of the matrix, so that reading is in it; what no cache holds comes no faster than
        # memory reads, whichever matrices the table was measured with.
        alone_s = kernel.flops_count / at(table, kernel.moved_bytes)
        memory = rates.read_bytes_per_s if is_parallel else rates.serial_read_bytes_per_s
        is_held = kernel.moved_bytes <= _held_bytes(rates.units.read_rates)
        return max(alone_s / threads, 0.0 if is_held else kernel.moved_bytes / memory)
    traffic_s = kernel.moved_bytes / (_by_set(rates.units.pass_rates, kernel.working_set_bytes) * threads)
    own_s = kernel.flops_count / (at(table, max(1, kernel.dim)) * threads)
    # What makes one value of another does nothing else than move, so its rate was that of the traffic.
    return own_s + traffic_s if kernel.kind in _WITH_PRODUCTS else max(own_s, traffic_s)
