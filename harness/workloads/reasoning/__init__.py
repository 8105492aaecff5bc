"""Reasoning checks: a library (``analysis exact constraints voting``) and a workload."""

from harness.workloads.reasoning.workload import ReasoningWorkload

WORKLOAD = ReasoningWorkload()
