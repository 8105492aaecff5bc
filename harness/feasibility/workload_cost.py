"""Latency of a workload's operation from its declared cost: a roofline for arrays, and counted steps beside it.

t = max(F / P(n) + E e + X x + S s + G g + Z z, M / W(w))
    + I i + N c + R r + A a + Q q + L l + K k + B b + V v + D / d + Y y + h

F FLOP of dense products, P the rate that products of smallest dimension n reach; E, X, S, G values of simple passes,
transcendentals, sort steps, gathers; Z bytes of new pages; M bytes moved, W the read bandwidth of a working set of w
bytes; I bytecode instructions, N calls of C functions, R characters of regular expressions, A calls of numpy; Q, L, K
statements, rows and commits of SQLite; B calls and V nodes of an inference engine; D bytes from storage and Y waits
for it; h what no count names. The small letters are what each takes on the machine (``UnitCosts``). A language model's
passes come from its own model of speed and are added. An operation that is not parallel gets one core's share of P and
what one thread can draw of W.

Sources: Williams et al. 2009, "Roofline"; counted abstract operations, each timed on a machine: Saavedra and Smith
1996, "Analysis of benchmark characteristics and benchmark performance prediction".
"""

from collections.abc import Callable, Iterable
from typing import Final

from harness.domain.base import Frozen
from harness.domain.device import DeviceProfile
from harness.domain.prediction import Interval
from harness.domain.workload import Cost, UnitCosts
from harness.feasibility.workload_units import REFERENCE, at, scaled

SPEC_SHARE: Final = 0.54
"""Share of the theoretical bandwidth that CPU cores draw where nobody measured it: the median of published decode
speeds on x86 servers; Apple's CPU cores get 0.34 of their chip's, x86 clients 0.69."""

SERIAL_SHARE: Final = 0.6
"""Share of all cores' bandwidth that one thread draws where it was not measured."""

CACHE_FREE_FLOPS_PER_S: Final = 2.0e10
"""Peak of one CPU core where a profile gives none: 2 fused operations x 4 lanes x 2.5 GHz, NEON's least."""

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
        limit: What takes most of it: ``compute``, ``memory``, ``arrays``, ``interpreter``, ``numpy calls``,
            ``database``, ``engine calls``, ``language model``, ``storage`` or ``overhead``.
        resident_bytes: Memory held while it runs, interpreter left out.
        parts_s: Seconds by cause; ``compute`` and ``arrays`` together run beside ``memory``, the rest adds up.
    """

    operation: str
    latency_s: Interval
    limit: str
    resident_bytes: int
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
    units = scaled(device, serial)
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
    parts = {
        "compute": cost.flops_count / _product_rate(cost, rates) if cost.flops_count else 0.0,
        "arrays": cost.elements_count * units.element_s
        + cost.transcendentals_count * units.transcendental_s
        + cost.sort_steps_count * units.sort_step_s
        + cost.gathers_count * units.gather_s
        + cost.fresh_bytes * units.fresh_byte_s,
        "memory": cost.moved_bytes / _read_rate(cost, rates) if cost.moved_bytes else 0.0,
        "interpreter": cost.python_ops_count * units.python_op_s
        + cost.native_calls_count * units.native_call_s
        + cost.regex_chars_count * units.regex_char_s,
        "numpy calls": cost.numpy_calls_count * units.numpy_call_s,
        "database": cost.sql_statements_count * units.sql_statement_s
        + cost.sql_rows_count * units.sql_row_s
        + cost.commits_count * units.commit_s,
        "engine calls": cost.session_calls_count * (units.session_call_s or REFERENCE.session_call_s)
        + cost.nodes_count * (units.node_s or REFERENCE.node_s),
        "language model": spoken_s,
        "storage": cost.disk_read_bytes / rates.storage_bytes_per_s + cost.flushes_count * units.flush_s,
        "overhead": cost.call_overhead_s * rates.overhead_ratio,
    }
    streamed = max(parts["compute"] + parts["arrays"], parts["memory"])
    mid = streamed + sum(v for k, v in parts.items() if k not in {"compute", "arrays", "memory"})
    return OperationPrediction(
        operation=cost.operation,
        latency_s=Interval(mid=mid, low=mid / rates.spread_ratio, high=mid * rates.spread_ratio),
        limit=max(parts, key=lambda name: parts[name]),
        resident_bytes=cost.resident_bytes + cost.file_bytes,
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


def _read_rate(cost: Cost, rates: Rates) -> float:
    """Bandwidth of the working set: memory's where it is unknown or larger than any cache."""
    memory = rates.read_bytes_per_s if cost.parallel else rates.serial_read_bytes_per_s
    table = rates.units.read_rates
    if not cost.working_set_bytes or (cost.parallel and cost.working_set_bytes > table[-2][0]):
        return memory  # the last-level cache is shared: more threads do not make it larger
    return max(memory, at(table, cost.working_set_bytes) * (rates.thread_count if cost.parallel else 1))
