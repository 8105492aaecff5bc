"""Long-term memory of what was told: kept by default, replaced only on evidence, forgotten only on request."""

from harness.workloads.memory_store.memory import SYSTEM as SYSTEM
