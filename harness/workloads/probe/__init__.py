"""Probing as a library (``linear``, ``study``, ``induction``) and as a workload."""

from harness.workloads.probe.workload import ProbeWorkload

WORKLOAD = ProbeWorkload("probe")
