"""For authors of plug-ins: suites that a device, a runtime and a workload must pass; the product imports none of them.

A test of one's own package is enough::

    from harness.testing import check_runtime

    def test_my_runtime(tmp_path):
        check_runtime(MyRuntime(), my_model(tmp_path))

A broken promise is an ``AssertionError`` that names the promise.
"""

from harness.testing.contracts import check_device, check_runtime, check_workload

__all__ = ["check_device", "check_runtime", "check_workload"]
