"""Counted costs: sums by hand, counts by the tracer, a model written byte by byte."""

import pytest

from harness.catalog.devices import load_device
from harness.domain.workload import Cost, UnitCosts
from harness.feasibility.workload_cost import predict_operation, rates_here, rates_of
from harness.feasibility.workload_units import REFERENCE, REFERENCE_SCORE, at, single_core
from harness.measure.interpreter import count

UNITS = UnitCosts(
    machine="made up",
    python_op_s=1e-8,
    native_call_s=2e-8,
    regex_char_s=1e-8,
    numpy_call_s=1e-6,
    element_s=1e-9,
    transcendental_s=1e-8,
    sort_step_s=5e-9,
    gather_s=2e-9,
    sql_statement_s=1e-5,
    sql_row_s=1e-6,
    commit_s=1e-4,
    session_call_s=1e-5,
    node_s=1e-6,
    product_rates=((16, 1e10), (1024, 4e10)),
    read_rates=((1 << 20, 8e10), (1 << 28, 2e10)),
    flush_s=1e-3,
    fresh_byte_s=1e-10,
)
RATES = rates_here(UNITS, thread_count=2, core_count=2, read_bytes_per_s=3e10)


@pytest.mark.parametrize(
    ("counts", "seconds", "limit"),
    [
        # 1000 x 1e-8 + 100 x 2e-8 + 500 x 1e-8 = 17 us
        ({"python_ops_count": 1000, "native_calls_count": 100, "regex_chars_count": 500}, 17e-6, "interpreter"),
        ({"numpy_calls_count": 40}, 40e-6, "numpy calls"),
        # 1e6 x 1e-9 + 1e5 x 1e-8 + 1e5 x 5e-9 + 1e5 x 2e-9 + 1e6 x 1e-10 = 1 + 1 + 0.5 + 0.2 + 0.1 ms
        (
            {
                "elements_count": 1e6,
                "transcendentals_count": 1e5,
                "sort_steps_count": 1e5,
                "gathers_count": 1e5,
                "fresh_bytes": 1e6,
            },
            2.8e-3,
            "arrays",
        ),
        # 3 x 1e-5 + 20 x 1e-6 + 1e-4
        ({"sql_statements_count": 3, "sql_rows_count": 20, "commits_count": 1}, 150e-6, "database"),
        ({"session_calls_count": 2, "nodes_count": 30}, 50e-6, "engine calls"),
        ({"flushes_count": 2}, 2e-3, "storage"),
        # one thread at the smallest table entry: 1e10 of a peak of 4e10
        ({"flops_count": 1e8, "product_dim": 16, "parallel": False}, 10e-3, "compute"),
        # two threads of it
        ({"flops_count": 1e8, "product_dim": 16}, 5e-3, "compute"),
        # a set of 1 MiB is read at 8e10; passes and reading overlap: the longer counts
        ({"moved_bytes": 8e8, "working_set_bytes": 1 << 20, "parallel": False, "elements_count": 1e6}, 10e-3, "memory"),
        # past any cache: 2e10 for one thread, 3e10 for both
        ({"moved_bytes": 2e8, "parallel": False}, 10e-3, "memory"),
        ({"moved_bytes": 3e8}, 10e-3, "memory"),
    ],
)
def test_each_unit_by_hand(counts, seconds, limit):
    fixed = {"operation": "x", "flops_count": 0.0, "moved_bytes": 0.0, "resident_bytes": 0}
    found = predict_operation(Cost(**{**fixed, **counts}), RATES)
    assert found.latency_s.mid == pytest.approx(seconds, rel=1e-9)
    assert found.limit == limit


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
    assert single_core(phone).score == 3409  # Macworld, 11 September 2024
    rates = rates_of(phone)
    assert rates.units.python_op_s == pytest.approx(REFERENCE.python_op_s * REFERENCE_SCORE / 3409)
    assert rates.units.flush_s == REFERENCE.flush_s  # storage, not the processor
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
    assert most.python_ops_count - more.python_ops_count == more.python_ops_count - few.python_ops_count > 0
    assert more.native_calls_count - few.native_calls_count == 10  # one len each


def test_the_smallest_onnx_model_runs():
    onnxruntime = pytest.importorskip("onnxruntime")
    np = pytest.importorskip("numpy")
    from harness.measure.onnx_chain import chain

    session = onnxruntime.InferenceSession(chain(3), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.arange(8, dtype=np.float32)})
    assert found.tolist() == [8.0 * i for i in range(8)]  # doubled three times
