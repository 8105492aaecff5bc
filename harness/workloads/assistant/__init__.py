"""One assistant that uses memory, retrieval, cited answers, verification and abstention together."""

from harness.workloads.assistant.workload import AssistantWorkload

WORKLOAD = AssistantWorkload("assistant")
