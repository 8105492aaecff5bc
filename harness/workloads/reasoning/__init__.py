"""Reasoning checks: a library (``analysis exact constraints contradictions``) and a workload."""

from harness.workloads.reasoning.workload import ReasoningWorkload

WORKLOAD = ReasoningWorkload("reasoning")
