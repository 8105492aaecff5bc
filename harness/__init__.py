"""edge-harness: predict, measure, explain and judge language models on devices."""

__version__ = "0.1.0"
