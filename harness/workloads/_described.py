"""What a workload says of itself: a row of ``workloads.toml``."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_TABLE: Final[dict[str, Any]] = tomllib.loads(Path(__file__).with_name("workloads.toml").read_text(encoding="utf-8"))


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
        self.samples_cases: bool = row.get("samples_cases", False)
        self.sizes: Mapping[str, Mapping[str, int]] = row["sizes"]
