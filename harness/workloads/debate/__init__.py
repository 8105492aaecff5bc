"""Two debaters and a judge on one small model: a library (``debating``) and a workload."""

from harness.workloads.debate.workload import DebateWorkload

WORKLOAD = DebateWorkload("debate")
