"""Latency of workloads by hand."""

import pytest

from harness.domain.workload import Cost
from harness.predict.workload_cost import Rates, predict_operation

RATES = Rates(
    flops_per_s=2e11,
    read_bytes_per_s=4e10,
    serial_flops_per_s=5e10,
    serial_read_bytes_per_s=1e10,
    storage_bytes_per_s=1e9,
)


@pytest.mark.parametrize(
    ("cost", "seconds", "limit"),
    [
        # max(4e8 / 2e11, 4e8 / 4e10) = 10 ms
        ({"flops_count": 4e8, "moved_bytes": 4e8}, 0.010, "memory"),
        # one thread: max(4e8 / 5e10, 4e8 / 1e10) = 40 ms
        ({"flops_count": 4e8, "moved_bytes": 4e8, "parallel": False}, 0.040, "memory"),
        # 2e10 / 2e11 = 100 ms
        ({"flops_count": 2e10, "moved_bytes": 4e8}, 0.1, "compute"),
        # 10 ms + 5e8 / 1e9
        ({"flops_count": 0, "moved_bytes": 4e8, "disk_read_bytes": 5e8}, 0.51, "storage"),
    ],
)
def test_latency_by_hand(cost, seconds, limit):
    found = predict_operation(Cost(operation="x", resident_bytes=10, **cost), RATES)
    assert found.latency_s.mid == pytest.approx(seconds, rel=1e-12)
    assert found.latency_s.low < seconds < found.latency_s.high
    assert found.limit == limit
