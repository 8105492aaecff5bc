"""The feasibility model: pure arithmetic on domain types."""
