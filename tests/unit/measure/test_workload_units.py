"""Counted costs: sums by hand, counts by the tracer, a model written byte by byte."""

import pytest

from harness.catalog.devices import load_device
from harness.domain.workload import Cost, Kernel, UnitCosts, new_page_bytes
from harness.measure.interpreter import count
from harness.predict.workload_cost import predict_operation, rates_here, rates_of
from harness.predict.workload_units import REFERENCE, REFERENCE_SCORE, at, single_core

UNITS = UnitCosts(
    machine="made up",
    python_op_s=1e-8,
    native_call_s=2e-8,
    regex_call_s=4e-7,
    regex_char_s=1e-8,
    numpy_call_s=1e-6,
    transcendental_s=1e-8,
    sort_step_s=1e-9,
    stable_sort_step_s=5e-9,
    partition_value_s=2e-9,
    scan_value_s=3e-9,
    gather_s=2e-9,
    fft_step_s=4e-10,
    sql_statement_s=1e-5,
    sql_row_s=1e-6,
    commit_s=1e-4,
    log_byte_s=1e-9,
    text_term_s=5e-6,
    checkpoint_s=1e-3,
    checkpoint_byte_s=4e-9,
    flush_s=1e-3,
    session_call_s=1e-5,
    node_s=1e-6,
    product_rates=((16, 1e10), (1024, 4e10)),
    read_rates=((1 << 20, 8e10), (1 << 28, 2e10)),
    matrix_rates=((1 << 20, 6e10), (1 << 28, 1e10)),
    pass_rates=((1 << 20, 1e11), (1 << 28, 2.5e10)),
    block_rates=((1 << 22, 1e11), (1 << 26, 1e10)),
    fresh_rates=((1 << 20, 2e9), (1 << 23, 8e9)),
    engine_rates={
        "product fp32": ((16, 1e10), (256, 2e11)),
        "depthwise int8": ((3, 5e10),),
        "vector int4": ((1 << 20, 2e11), (1 << 26, 1e11)),
        "gelu fp32": ((0, 1e9),),
    },
)
RATES = rates_here(UNITS, thread_count=2, core_count=2, read_bytes_per_s=3e10)
ALONE = {"parallel": False}


def _kernel(**fields):
    return {"kernels": (Kernel(**fields),)}


@pytest.mark.parametrize(
    ("counts", "seconds", "limit"),
    [
        # 1000 x 1e-8 + 100 x 2e-8 + 10 x 4e-7 + 500 x 1e-8 = 10 + 2 + 4 + 5 us
        (
            {
                "python_ops_count": 1000,
                "native_calls_count": 100,
                "regex_calls_count": 10,
                "regex_chars_count": 500,
            },
            21e-6,
            "interpreter",
        ),
        ({"numpy_calls_count": 40}, 40e-6, "numpy calls"),
        # 1e8 bytes in a cache at 1e11, 2e7 bytes of blocks from memory at 1e10: 1 + 2 ms
        (
            {"pass_bytes": 1e8, "pass_set_bytes": 1 << 20, "block_bytes": 2e7, "block_set_bytes": 1 << 26},
            3e-3,
            "arrays",
        ),
        ({"pass_bytes": 1e8}, 4e-3, "arrays"),  # of unknown extent: at memory's 2.5e10
        # 1e5 x (1e-8 + 1e-9 + 5e-9 + 2e-9 + 3e-9 + 2e-9 + 4e-10) = 2.34 ms
        (
            {
                "transcendentals_count": 1e5,
                "sort_steps_count": 1e5,
                "stable_sort_steps_count": 1e5,
                "partition_values_count": 1e5,
                "scan_values_count": 1e5,
                "gathers_count": 1e5,
                "fft_steps_count": 1e5,
            },
            2.34e-3,
            "arrays",
        ),
        ({"fresh_bytes": 4e6, "fresh_array_bytes": 1 << 20}, 2e-3, "new pages"),
        ({"fresh_bytes": 4e6, "fresh_array_bytes": 1 << 23}, 5e-4, "new pages"),
        # 3 x 1e-5 + 20 x 1e-6 + 1e-4 + 5e4 x 1e-9 + 10 x 5e-6
        (
            {
                "sql_statements_count": 3,
                "sql_rows_count": 20,
                "commits_count": 1,
                "log_bytes": 5e4,
                "text_terms_count": 10,
            },
            250e-6,
            "database",
        ),
        # 1e-3 + 5e4 x 4e-9
        ({"checkpoints_count": 1, "checkpoint_bytes": 5e4}, 1.2e-3, "storage"),
        ({"flushes_count": 2}, 2e-3, "storage"),
        ({"session_calls_count": 2, "nodes_count": 30}, 50e-6, "engine calls"),
        # one thread at the smallest table entry: 1e10 of a peak of 4e10
        ({"flops_count": 1e8, "product_dim": 16, **ALONE}, 10e-3, "compute"),
        # two threads of it
        ({"flops_count": 1e8, "product_dim": 16}, 5e-3, "compute"),
        # a product waits for the longer of arithmetic (1e8 / 4e10 = 2.5 ms) and reading (8e8 / 8e10)
        ({"flops_count": 1e8, "moved_bytes": 8e8, "working_set_bytes": 1 << 20, **ALONE}, 10e-3, "memory"),
        # past any cache: 2e10 for one thread, 3e10 for both
        ({"moved_bytes": 2e8, **ALONE}, 10e-3, "memory"),
        ({"moved_bytes": 3e8}, 10e-3, "memory"),
        # a matrix by a vector: 6e10 in the cache, 1e10 beyond, for both threads the share of reading in order, 1.5e10
        ({"matrix_bytes": 6e8, "working_set_bytes": 1 << 20, **ALONE}, 10e-3, "memory"),
        ({"matrix_bytes": 1e8, **ALONE}, 10e-3, "memory"),
        ({"matrix_bytes": 1.5e8}, 10e-3, "memory"),
        # 2e8 / 2e11 + 1e8 / 1e11 = 1 + 1 ms for one thread, half of it for two
        (
            _kernel(kind="product", flops_count=2e8, moved_bytes=1e8, dim=256, working_set_bytes=1 << 20) | ALONE,
            2e-3,
            "engine",
        ),
        (_kernel(kind="product", flops_count=2e8, moved_bytes=1e8, dim=256, working_set_bytes=1 << 20), 1e-3, "engine"),
        (_kernel(kind="depthwise", dtype="int8", flops_count=1e8, dim=5) | ALONE, 2e-3, "engine"),
        # the longer of 1e6 values / 1e9 and 8e6 bytes / 1e11
        (_kernel(kind="gelu", flops_count=1e6, moved_bytes=8e6, working_set_bytes=1 << 20) | ALONE, 1e-3, "engine"),
        # its table is by the bytes of the matrix: 4e8 / 1e11 beyond the cache; but no faster than memory, 1e8 / 2e10
        (_kernel(kind="vector", dtype="int4", flops_count=4e8, moved_bytes=(1 << 26)) | ALONE, 4e-3, "engine"),
        (_kernel(kind="vector", dtype="int4", flops_count=2e8, moved_bytes=1e8) | ALONE, 5e-3, "engine"),
        # in a cache two threads take half of 2e8 / 2e11; beyond it they share the memory: 1.5e8 / 3e10
        (_kernel(kind="vector", dtype="int4", flops_count=2e8, moved_bytes=1 << 20), 5e-4, "engine"),
        (_kernel(kind="vector", dtype="int4", flops_count=2e8, moved_bytes=1.5e8), 5e-3, "engine"),
    ],
)
def test_each_unit_by_hand(counts, seconds, limit):
    fixed = {"operation": "x", "flops_count": 0.0, "moved_bytes": 0.0, "resident_bytes": 0}
    found = predict_operation(Cost(**{**fixed, **counts}), RATES)
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
        (40 << 20, 40 << 20, 40 << 20),  # above 32 MiB always mapped
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
    assert single_core(phone).score == 3409  # Macworld, 11 September 2024
    rates = rates_of(phone)
    assert rates.units.python_op_s == pytest.approx(REFERENCE.python_op_s * REFERENCE_SCORE / 3409)
    assert rates.units.flush_s == REFERENCE.flush_s  # storage, not the processor
    assert rates.units.checkpoint_byte_s == REFERENCE.checkpoint_byte_s
    assert (
        predict_operation(Cost(operation="x", flops_count=1, moved_bytes=0, resident_bytes=0), rates).basis == "profile"
    )
    # Its engine reaches the reference's share of the profile's peak of one core.
    peak = rates.serial_flops_per_s
    whole = max(rate for _, rate in REFERENCE.engine_rates["product fp32"])
    assert max(r for _, r in rates.units.engine_rates["product fp32"]) == pytest.approx(peak)
    expected = REFERENCE.engine_rates["convolution int8"][0][1] / whole * peak
    assert rates.units.engine_rates["convolution int8"][0][1] == pytest.approx(expected)
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
    from harness.measure.engine_units import additions

    session = onnxruntime.InferenceSession(additions(3), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.arange(8, dtype=np.float32)})
    assert found.tolist() == [8.0 * i for i in range(8)]  # doubled three times


def test_products_of_the_probes_graphs_are_those_of_numpy():
    onnxruntime = pytest.importorskip("onnxruntime")
    np = pytest.importorskip("numpy")
    from harness.measure import engine_units

    data, feed = engine_units._products(2, 16, engine_units._plain)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    weights = np.random.default_rng(1).standard_normal((512, 512), dtype=np.float32) * np.float32(0.05)
    assert np.allclose(session.run(None, feed)[0], feed["x"] @ weights @ weights, atol=1e-4)


def test_every_kernel_of_the_reference_is_measured():
    from harness.measure import engine_units

    measured = {name for name, *_ in engine_units._measured()} | {f"vector {d}" for d in engine_units._VECTOR_DIMS}
    assert measured == set(REFERENCE.engine_rates)


def test_the_log_of_a_database_has_a_frame_for_each_page_changed(tmp_path):
    from harness.measure import sql_units

    db = sql_units._filled(tmp_path / "units.db")
    try:
        for count in (1, 7, 32):
            _, log_bytes = sql_units._transaction(db, sql_units._updates(db, count))
            assert log_bytes == count * 4096  # a row a page
    finally:
        db.close()


def test_one_thread_reads_a_cached_matrix_at_the_caches_speed():
    # 2e8 / 2e11 = 1 ms; from a memory of 1e8 bytes/s the matrix would take 10 ms.
    slow = rates_here(UNITS, thread_count=1, core_count=2, read_bytes_per_s=1e8)
    kernel = Kernel(kind="vector", dtype="int4", flops_count=2e8, moved_bytes=1 << 20)
    cost = Cost(operation="x", flops_count=0, moved_bytes=0, resident_bytes=0, kernels=(kernel,))
    assert predict_operation(cost, slow).latency_s.mid == pytest.approx(1e-3)
