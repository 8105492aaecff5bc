"""Answers grounded in retrieved passages: a library (``facts answering sets``) and a workload."""

from harness.workloads.grounding_qa.workload import GroundingWorkload

WORKLOAD = GroundingWorkload("grounding_qa")
