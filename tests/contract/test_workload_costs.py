"""Every workload declares what each of its operations costs at each of its sizes, and its counts are what runs."""

import math

import pytest

from harness import plugins
from harness.app.workloads import load, size_of
from harness.catalog.devices import load_device
from harness.ports import WorkloadContext
from harness.predict.workload_cost import predict_workload

NAMES = plugins.names("harness.workloads")
SIZES = [(name, size) for name in NAMES for size in load(name).sizes]


@pytest.mark.parametrize(("name", "size"), SIZES)
def test_every_size_is_declared_and_predicted(name, size):
    workload = load(name)
    costs = workload.costs(workload.sizes[size])
    names = [c.operation for c in costs]
    assert len(set(names)) == len(names) > 0
    for cost in costs:
        for field in cost.__struct_fields__:
            value = getattr(cost, field)
            assert not isinstance(value, int | float) or (math.isfinite(value) and value >= 0), field
    phone = load_device("iphone-16-pro")
    for found in predict_workload(costs, phone, lambda _cost: 1.0):
        assert 0 < found.latency_s.low < found.latency_s.mid < found.latency_s.high < 100
        assert found.basis == "profile"


@pytest.mark.parametrize("name", ["calibration", "training_efficiency", "reasoning", "memory_store", "probe"])
def test_costs_are_named_as_the_operations_are(name, tmp_path):
    workload = load(name)
    size = workload.sizes["small"]
    state = workload.prepare(size, WorkloadContext(tmp_path, tmp_path, 1, 1))
    assert {o.name for o in workload.operations(state)} == {c.operation for c in workload.costs(size)}


@pytest.mark.parametrize(
    ("name", "small", "large", "operation", "ratio"),
    [
        # Four times the rows: four times the passes.
        ("calibration", "row_count=100000", "row_count=400000", "ece", 4.0),
        # Twice the memories: the matrix is read in twice the bytes.
        ("memory_store", "entry_count=20000", "entry_count=40000", "retrieve", 2.0),
    ],
)
def test_passes_grow_with_the_size(name, small, large, operation, ratio):
    workload = load(name)
    found = []
    for text in (small, large):
        cost = next(c for c in workload.costs(size_of(workload, text)) if c.operation == operation)
        found.append(cost.pass_bytes)
    assert found[1] / found[0] == pytest.approx(ratio, rel=0.02)


@pytest.mark.parametrize("name", ["training_efficiency", "reasoning", "memory_store", "calibration"])
def test_interpreted_work_is_what_the_tracer_counts(name, tmp_path):
    """Within a quarter: inputs differ, and a line more or less is no fault; a count that is off by half is."""
    from harness.measure.interpreter import count

    workload = load(name)
    size = workload.sizes["small"]
    state = workload.prepare(size, WorkloadContext(tmp_path, tmp_path, 1, 1))
    declared = {c.operation: c for c in workload.costs(size)}
    for operation in workload.operations(state):
        operation.call()
        traced = sorted(count(operation.call) for _ in range(5))[2] / operation.call_count
        assert declared[operation.name].python_ops_count == pytest.approx(traced, rel=0.25), operation.name


def test_the_products_of_a_training_step_by_hand():
    # Two layers of 4 x 64 x 64 + 3 x 64 x 192 weights and an output of 64 x 256; attention 12 x 2 x 64 x 64 a token.
    workload = load("training_efficiency")
    (cost,) = workload.costs(workload.sizes["small"])
    assert cost.flops_count == 4 * 64 * (6 * (2 * (4 * 64 * 64 + 3 * 64 * 192) + 64 * 256) + 12 * 2 * 64 * 64)


def test_the_weights_of_an_encoder_by_hand():
    workload = load("sparse_autoencoder")
    costs = {c.operation: c for c in workload.costs(workload.sizes["small"])}
    weights = 576 * 4608
    assert costs["encode fp32"].moved_bytes == 4 * weights
    assert costs["encode fp16"].moved_bytes == 2 * 2 * weights
    assert costs["encode fp16"].pass_bytes == (36 + 8) * weights + 12 * 4608
    if "encode ort int8" in costs:
        (product, _) = costs["encode ort int8"].kernels
        assert (product.flops_count, product.moved_bytes) == (2 * weights, weights + 4 * weights / 32)
