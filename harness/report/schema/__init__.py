"""The published JSON Schema of reports; ``python -m harness.report.schema`` writes it anew from the types."""
