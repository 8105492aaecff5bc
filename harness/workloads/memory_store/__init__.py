"""Long-term memory as a library (``store.MemoryStore``) and as a workload."""

from harness.workloads.memory_store.workload import MemoryWorkload

WORKLOAD = MemoryWorkload("memory_store")
