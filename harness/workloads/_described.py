"""What a workload says of itself: a row of ``workloads.toml``."""

from collections.abc import Mapping
from typing import Final

from harness.domain.base import shipped_table

_TABLE: Final = shipped_table("workloads.toml", "harness.workloads")


class Described:
    """Base of a workload whose title, extra, need of a model and sizes are a row of the table.

    Attributes: See :class:`harness.ports.Workload`.
    """

    def __init__(self, name: str) -> None:
        row = _TABLE[name]
        self.name = name
        self.title: str = row["title"]
        self.extra: str = row.get("extra", "")
        self.needs_model: bool = row.get("needs_model", False)
        self.evaluates_model: bool = row.get("evaluates_model", False)
        self.samples_cases: bool = row.get("samples_cases", False)
        self.sizes: Mapping[str, Mapping[str, int]] = row["sizes"]
