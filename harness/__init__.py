"""edge-harness: predict, measure, explain and judge language models on devices."""

__version__ = "0.2.0"
