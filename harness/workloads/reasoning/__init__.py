"""Reasoning checks: a library (``analysis exact constraints tasks voting``) and a workload."""

from harness.workloads.reasoning.workload import ReasoningWorkload

WORKLOAD = ReasoningWorkload()
