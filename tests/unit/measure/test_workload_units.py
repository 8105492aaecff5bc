"""Counted costs: sums by hand, counts by the tracer, the probe's own loops."""

import msgspec
import pytest

from harness.catalog.devices import load_device
from harness.domain.workload import NATIVE_OPS, Cost, Kernel, UnitCosts, new_page_bytes
from harness.measure.interpreter import count
from harness.predict.workload_cost import predict_operation, rates_here, rates_of
from harness.predict.workload_units import REFERENCE, REFERENCE_SCORE, at, single_core

UNITS = UnitCosts(
    machine="made up",
    python_op_s=1e-8,
    numpy_call_s=1e-6,
    array_step_s=2e-9,
    sql_statement_s=1e-5,
    flush_s=1e-3,
    session_call_s=1e-5,
    fresh_bytes_per_s=2e9,
    product_flops_per_s=4e10,
    engine_flops_per_s=1e11,
    engine_int8_flops_per_s=4e11,
    read_rates=((1 << 20, 8e10), (1 << 28, 2e10)),
    pass_rates=((1 << 20, 1e11), (1 << 28, 2.5e10)),
)
RATES = rates_here(UNITS, thread_count=2, core_count=2, read_bytes_per_s=3e10)
ALONE = {"parallel": False}


def _kernel(**fields):
    return {"kernels": (Kernel(**fields),)}


@pytest.mark.parametrize(
    ("counts", "seconds", "limit"),
    [
        # 1000 x 1e-8 + 400 x 2.25 x 1e-8
        ({"python_ops_count": 1000, "regex_chars_count": 400}, 19e-6, "interpreter"),
        ({"numpy_calls_count": 40}, 40e-6, "numpy calls"),
        # 1e8 bytes in a cache at 1e11 and 1e6 steps: 1 + 2 ms
        ({"pass_bytes": 1e8, "pass_set_bytes": 1 << 20, "array_steps_count": 1e6}, 3e-3, "arrays"),
        ({"pass_bytes": 1e8}, 4e-3, "arrays"),  # of unknown extent: at memory's 2.5e10
        ({"fresh_bytes": 4e6}, 2e-3, "new pages"),
        ({"sql_statements_count": 3}, 30e-6, "database"),
        ({"flushes_count": 2}, 2e-3, "storage"),
        ({"session_calls_count": 2}, 20e-6, "engine calls"),
        # one thread at a dimension that reaches half: 4e10 x 9 / (9 + 9)
        ({"flops_count": 1e8, "product_dim": 9, **ALONE}, 5e-3, "compute"),
        # two threads of it, of a large product
        ({"flops_count": 1e8}, 1.25e-3, "compute"),
        # a product waits for the longer of arithmetic (1e8 / 4e10 = 2.5 ms) and reading (8e8 / 8e10)
        ({"flops_count": 1e8, "moved_bytes": 8e8, "working_set_bytes": 1 << 20, **ALONE}, 10e-3, "memory"),
        # past any cache: 2e10 for one thread, 3e10 for both
        ({"moved_bytes": 2e8, **ALONE}, 10e-3, "memory"),
        ({"moved_bytes": 3e8}, 10e-3, "memory"),
        # between the cache's entry and memory's: no cache holds it
        ({"moved_bytes": 2e8, "working_set_bytes": 1 << 24, **ALONE}, 10e-3, "memory"),
        # 1e8 / 1e11 and 1e8 / 1e11 of traffic for one thread, half of it for two
        (_kernel(kind="product", flops_count=1e8, moved_bytes=1e8, working_set_bytes=1 << 20) | ALONE, 2e-3, "engine"),
        (_kernel(kind="product", flops_count=1e8, moved_bytes=1e8, working_set_bytes=1 << 20), 1e-3, "engine"),
        # half of the rate at 5 channels in fp32, at 16 in 8 bits
        (_kernel(kind="convolution", flops_count=1e8, dim=5) | ALONE, 2e-3, "engine"),
        (_kernel(kind="convolution", dtype="int8", flops_count=1e8, dim=16) | ALONE, 0.5e-3, "engine"),
        # the longer of 1e6 values of 99 FLOP and 8e6 bytes / 1e11
        (_kernel(kind="gelu", flops_count=1e6, moved_bytes=8e6, working_set_bytes=1 << 20) | ALONE, 0.99e-3, "engine"),
        # a matrix by one vector: the longer of 4e8 / 1e11 and reading 1e8 / 2e10
        (_kernel(kind="vector", dtype="int4", flops_count=4e8, moved_bytes=1 << 20) | ALONE, 4e-3, "engine"),
        (_kernel(kind="vector", dtype="int4", flops_count=4e8, moved_bytes=1e8) | ALONE, 5e-3, "engine"),
        # past any cache two threads share the memory: 1.5e8 / 3e10
        (_kernel(kind="vector", dtype="int4", flops_count=2e8, moved_bytes=1.5e8), 5e-3, "engine"),
    ],
)
def test_each_unit_by_hand(counts, seconds, limit):
    found = predict_operation(Cost(operation="x", resident_bytes=0, **counts), RATES)
    assert found.latency_s.mid == pytest.approx(seconds, rel=1e-9)
    assert (found.limit, found.basis) == (limit, "probe")


def test_a_kernel_that_no_engine_has_is_refused():
    cost = Cost(
        operation="x", flops_count=0, moved_bytes=0, resident_bytes=0, kernels=(Kernel(kind="y", flops_count=1),)
    )
    with pytest.raises(ValueError, match="no kernel 'y fp32'"):
        predict_operation(cost, RATES)


@pytest.mark.parametrize(
    ("held", "largest", "new"),
    [
        (600 << 10, 80 << 10, 0),  # stays at the end of the heap: less than twice 330 KiB
        (700 << 10, 80 << 10, 700 << 10),
        (2 << 20, 1 << 20, 0),  # two of the largest
        ((2 << 20) + 8, 1 << 20, (2 << 20) + 8),
        (42 << 20, 42 << 20, 14 << 20),  # above 32 MiB always mapped; huge pages count a third
    ],
)
def test_new_pages_by_the_rules_of_the_allocator(held, largest, new):
    assert new_page_bytes(held, largest) == new


def test_a_language_model_adds_its_seconds_and_is_needed():
    cost = Cost(operation="x", flops_count=0, moved_bytes=0, resident_bytes=0, decode_steps_count=3)
    with pytest.raises(ValueError, match="language model"):
        predict_operation(cost, RATES)
    found = predict_operation(cost, RATES, lambda c: 0.5 * c.decode_steps_count)
    assert (found.latency_s.mid, found.limit) == (1.5, "language model")


def test_rates_between_entries_are_linear_in_the_logarithm():
    table = ((4, 10.0), (16, 30.0))
    assert [at(table, n) for n in (1, 4, 8, 16, 99)] == [10.0, 10.0, pytest.approx(20.0), 30.0, 30.0]


def test_another_device_takes_the_ratio_of_published_scores():
    phone = load_device("iphone-16-pro")
    assert single_core(phone) == 3409  # Macworld, 11 September 2024
    rates = rates_of(phone)
    assert rates.units.python_op_s == pytest.approx(REFERENCE.python_op_s * REFERENCE_SCORE / 3409)
    assert rates.units.flush_s == REFERENCE.flush_s  # storage, not the processor
    # Its engine reaches the profile's peak of one core, eight bits the reference's multiple of it.
    peak = rates.serial_flops_per_s
    assert rates.units.engine_flops_per_s == pytest.approx(peak)
    gain = REFERENCE.engine_int8_flops_per_s / REFERENCE.engine_flops_per_s
    assert rates.units.engine_int8_flops_per_s == pytest.approx(gain * peak)
    board = rates_of(load_device("raspberry-pi-5"))
    assert board.units.python_op_s > 2 * rates.units.python_op_s
    assert board.units.read_rates[-1][1] == board.serial_read_bytes_per_s


def test_counts_of_a_loop_grow_by_the_same_for_each_turn():
    def turns(number):
        total = 0
        for value in range(number):
            total += len("four") * value
        return total

    few, more, most = (count(lambda n=n: turns(n)) for n in (10, 20, 30))
    assert most - more == more - few > 10 * NATIVE_OPS  # one len each, beside the loop's own instructions


def test_what_the_interpreter_drew_widens_the_interval():
    """1e6 instructions: 10 ms, drawn from 8 to 15 ms; beyond both ends as far as any prediction may be off."""
    drawn = msgspec.structs.replace(UNITS, python_op_range_s=(0.8e-8, 1.5e-8))
    for units, least_s, most_s in ((drawn, 8e-3, 15e-3), (UNITS, 10e-3, 10e-3)):
        rates = rates_here(units, thread_count=2, core_count=2, read_bytes_per_s=3e10)
        found = predict_operation(Cost(operation="x", resident_bytes=0, python_ops_count=1_000_000), rates).latency_s
        assert found.mid == pytest.approx(10e-3)
        assert found.low == pytest.approx(least_s / rates.spread_ratio)
        assert found.high == pytest.approx(most_s * rates.spread_ratio)


def test_the_probe_of_this_machine_gives_every_unit():
    """Each unit is within two powers of ten of the reference's, from the real loops in their child."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from harness.measure.workload_probe import probe_units

    units = probe_units(engine=True)
    for name in set(REFERENCE.__struct_fields__) - {"machine", "read_rates", "pass_rates", "python_op_range_s"}:
        assert 0.01 < getattr(units, name) / getattr(REFERENCE, name) < 100, name
    assert all(rate > 1e8 for _, rate in units.read_rates + units.pass_rates)
    assert units.python_op_range_s is not None
    least, most = units.python_op_range_s
    assert 0 < least <= units.python_op_s <= most


def test_products_are_counted_as_the_engine_makes_them():
    """A chain of five products takes more than one of them: the difference is what a rate is made of."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    import numpy as np

    from harness.measure.workload_probe import _chain

    x = np.ones((256, 512), np.float32)
    assert _chain(5, "MatMul", x) > 2 * _chain(1, "MatMul", x)
