"""Grounded vision as a library (``encoder``, ``tracks``, ``object_graph``) and as a workload."""

from harness.workloads.grounded_vision.workload import VisionWorkload

WORKLOAD = VisionWorkload()
