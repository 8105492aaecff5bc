"""Probing as a library (``linear``, ``properties``, ``study``, ``induction``) and as a workload."""

from harness.workloads.probe.workload import ProbeWorkload

WORKLOAD = ProbeWorkload()
