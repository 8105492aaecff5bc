"""Files of published measurements as text: each row by its columns, with its place for what is wrong with it."""

import csv
import io
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final, Literal

from harness.domain.foreign import read_limited
from harness.errors import BadDataError

Kind = Literal["speed", "speculation", "streaming", "placement", "energy", "thermal", "batch"]

_COLUMNS: Final[dict[Kind, tuple[str, ...]]] = {
    "speculation": ("speedup", "acceptance_rate", "target", "method", "device", "gamma", "acceptance_kind"),
    "streaming": (
        "storage_read_gb_s", "ram_bytes_or_budget", "arch", "model_bytes", "tokens_per_s", "params_b",
        "active_params_b",
    ),
    "placement": ("offload_mode", "n_gpu_layers", "n_cpu_moe", "gpu_chip", "model", "quant", "test", "tokens_per_s"),
    "energy": ("joules_per_token", "power_scope", "device", "chip", "device_class", "backend", "model", "quant"),
    "thermal": ("run_id", "t_s", "device", "chip", "device_class", "backend", "model", "quant", "tokens_per_s"),
    "batch": ("batch_npl", "tg_tokens_per_s_total", "chip", "backend", "model", "quant", "memory_bandwidth_gb_s"),
    "speed": ("chip", "backend", "test", "tokens_per_s", "memory_bandwidth_gb_s", "model", "quant"),
}  # fmt: skip
"""Columns without which there is no answer; the first two tell a file's kind, in this order: speeds come last."""
_NUMBERS: Final[dict[Kind, tuple[str, ...]]] = {
    "speculation": ("gamma", "acceptance_rate", "mean_accepted_tokens", "draft_cost_ratio_c", "speedup"),
    "placement": (
        "n_gpus", "n_gpu_layers", "n_layers", "n_cpu_moe", "params_b", "active_params_b", "model_bytes", "bytes_on_cpu",
        "gpu_bandwidth_gb_s", "cpu_bandwidth_gb_s", "n_ubatch", "tokens_per_s",
    ),
}  # fmt: skip
"""Cells that are numbers or blank even in rows that nothing else is asked of."""


class Cells(dict[str, str]):
    """One row as text by column, with its place in the file."""

    def __init__(self, cells: Mapping[str, str], path: Path | str, line: int) -> None:
        super().__init__(cells)
        self.path, self.line = path, line

    def number(self, column: str) -> float:
        """Value of a cell; 0 for a blank or a missing one.

        Raises:
            BadDataError: It is no number, or a negative one.
        """
        text, place = self.get(column, "").replace(",", ""), f"line {self.line}, {column}"
        if not text or text.lower() in {"nan", "none", "null", "n/a", "na", "-", "?"}:
            return 0.0
        try:
            value = float(text)
        except ValueError:
            raise BadDataError(self.path, place, repr(text), "a number or a blank") from None
        if not math.isfinite(value) or value < 0:
            raise BadDataError(self.path, place, repr(text), "a number from 0 on")
        return value

    def numbers(self, *columns: str) -> Iterator[float]:
        """Values of several cells."""
        return map(self.number, columns)


@contextmanager
def _opened(path: Path) -> "Iterator[csv.DictReader[str]]":
    try:
        reader = csv.DictReader(io.StringIO(read_limited(path).decode("utf-8-sig"), newline=""))
        reader.fieldnames = [column.strip().lower() for column in reader.fieldnames or ()]
        yield reader
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadDataError(path, "", str(error), "a CSV file in UTF-8") from error


def kind_of(path: Path) -> Kind:
    """What a file of published rows is about, by its header: speeds, unless it has columns that only others have.

    Raises:
        BadDataError: It cannot be read.
    """
    with _opened(path) as reader:
        header = set(reader.fieldnames or ())
    return next((kind for kind, columns in _COLUMNS.items() if header.issuperset(columns[:2])), "speed")


def read_cells(name: str, path: Path | None, kind: Kind) -> list[Cells]:
    """Rows of the shipped file ``name``, or of ``path``; columns in any order and blanks anywhere are fine.

    Raises:
        BadDataError: It is no such file: not text, columns missing, a number that is none.
    """
    if path is None:
        with as_file(files("harness.published") / "data" / name) as shipped:
            return read_cells(name, shipped, kind)
    rows = []
    with _opened(path) as reader:
        if missing := [column for column in _COLUMNS[kind] if column not in (reader.fieldnames or ())]:
            raise BadDataError(path, "header", f"no column {', '.join(missing)}", f"the columns of {name}")
        for cells in reader:
            row = {k: (v or "").strip() for k, v in cells.items() if isinstance(k, str)}
            row["trust"] = row.get("trust", "").upper()
            rows.append(Cells(row, path, reader.line_num))
            list(rows[-1].numbers(*_NUMBERS.get(kind, ())))
    return rows
