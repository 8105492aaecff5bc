"""Training efficiency: exact figures as a library (``figures``, ``finetune``), a measured loop as a workload."""

from harness.workloads.training_efficiency.workload import TrainingWorkload

WORKLOAD = TrainingWorkload("training_efficiency")
