"""Grounded vision as a library (``encoder``, ``reading``, ``tracks``) and as a workload."""

from harness.workloads.grounded_vision.workload import VisionWorkload

WORKLOAD = VisionWorkload("grounded_vision")
