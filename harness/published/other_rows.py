"""Published speedups of speculative decoding and speeds of streaming, against the models of both."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Final, Literal

import numpy as np

from harness.domain.base import Frozen
from harness.errors import BadDataError
from harness.predict.moe import ROUTED_RATIO, hit_ratio, streamed_token_s
from harness.predict.speculative import measured_row, predicted_speedup
from harness.predict.streaming import BUSY_DISK_RATIO, mmap_read_s
from harness.published.rows import number_in

_HOST_BYTES_PER_S: Final = 48e9
"""Weights read by a desktop's or laptop's CPU where a row does not say: 0.6 of 80 GB/s."""
_CARD_BYTES_PER_S: Final = 320e9
"""The same of the graphics card of the dense rows (616 GB/s by its data sheet), at half."""
_CACHE_RATIO: Final = 0.85
"""Share of RAM that a cache of experts gets."""


class Check(Frozen, frozen=True, kw_only=True):
    """One set of rows.

    Attributes:
        name: What was predicted.
        rows_count: Rows with all that the model needs.
        skipped_count: Rows without.
        median_ratio: Median error |predicted / measured - 1|; None without rows.
        within_ratio: Share within a factor 1.3; None without rows.
        refused: Rows that are outside of what the model is of, by reason; not among the others.
    """

    name: str
    rows_count: int
    skipped_count: int
    median_ratio: float | None
    within_ratio: float | None
    refused: dict[str, int] = {}


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
}  # fmt: skip
"""Columns without which there is no answer; the first two are those that no file of another kind has."""
_NUMBERS: Final[dict[Kind, tuple[str, ...]]] = {
    "speculation": ("gamma", "acceptance_rate", "mean_accepted_tokens", "draft_cost_ratio_c", "speedup"),
    "placement": (
        "n_gpus", "n_gpu_layers", "n_layers", "n_cpu_moe", "params_b", "active_params_b", "model_bytes", "bytes_on_cpu",
        "gpu_bandwidth_gb_s", "cpu_bandwidth_gb_s", "n_ubatch", "tokens_per_s",
    ),
}  # fmt: skip
"""Cells that are numbers or blank even in rows that nothing else is asked of."""


_OUTSIDE: Final = (
    ("method", r"tree", "a tree of drafts is verified: its budget is no draft length"),
    ("batch", r"^(?!1(\.0*)?$)\d", "several sequences share one reading of the weights"),
    ("system", r"flexgen|zero-inference", "an offloading server that trades latency for batch"),
    ("system device", r"\b(nodes|machines|devices|hosts)\b|cluster|distributed|\bd1\b.*\bd[2-9]\b", "several machines"),
)
"""Rows that the models of speculation and of streaming are not of: columns, what stands in one of them, and why."""


def outside(raw: Mapping[str, str]) -> str:
    """Why a row of speculation or streaming is outside of what its model is of; empty where it is not."""
    said = (why for names, words, why in _OUTSIDE for n in names.split() if re.search(words, raw.get(n, "").lower()))
    return next(said, "")


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
        return number_in(self.path, self.line, self, column)

    def numbers(self, *columns: str) -> Iterator[float]:
        """Values of several cells."""
        return map(self.number, columns)


def kind_of(path: Path) -> Kind:
    """What a file of published rows is about, by its header: speeds, unless it has columns that only others have.

    Raises:
        BadDataError: It cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = {name.strip().lower() for name in next(csv.reader(file), [])}
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadDataError(path, "", str(error), "a CSV file in UTF-8") from error
    except OSError as error:
        raise BadDataError(path, "", error.strerror or str(error), "a readable file") from error
    return next((kind for kind, columns in _COLUMNS.items() if header.issuperset(columns[:2])), "speed")


def read_cells(name: str, path: Path | None, kind: Kind) -> list[Cells]:
    """Rows of the shipped file ``name``, or of ``path``; columns in any order and blanks anywhere are fine."""
    text = (files("harness.published") / "data" / name).read_text() if path is None else path.read_text("utf-8-sig")
    reader = csv.DictReader(io.StringIO(text, newline=""))
    reader.fieldnames = [column.strip().lower() for column in reader.fieldnames or ()]
    missing = [column for column in _COLUMNS[kind] if column not in reader.fieldnames]
    if missing:
        raise BadDataError(path or name, "header", f"no column {', '.join(missing)}", f"the columns of {name}")
    rows = []
    for cells in reader:
        row = {k: (v or "").strip() for k, v in cells.items() if isinstance(k, str)}
        rows.append(Cells(row, path or name, reader.line_num))
        list(rows[-1].numbers(*_NUMBERS.get(kind, ())))
    return rows


def check_speculation(path: Path | None = None) -> Check:
    """Measured speedups from acceptance, draft length and device; constants from other devices only.

    Args:
        path: Rows to predict, by the shipped ones; None: the shipped ones themselves.

    Raises:
        BadDataError: Columns are missing, or a number is none.
    """
    ours, _ = _inside(read_cells("spec_decode.csv", None, "speculation"))
    cells, refused = _inside(read_cells("spec_decode.csv", path, "speculation"))
    known, rows = ([row for row in map(measured_row, of) if row is not None] for of in (ours, cells))
    quotients = []
    for row in rows:
        told = "device" if row.machine is None else "machine"
        others = [other for other in known if getattr(row, told) != getattr(other, told)]
        predicted = predicted_speedup(row, others)
        if predicted is not None:
            quotients.append(predicted / row.speedup)
    return check_of("speculative speedup, device left out", quotients, len(cells), refused)


def _inside(cells: list[Cells]) -> tuple[list[Cells], dict[str, int]]:
    """Rows that the models are of, and how many are not, by reason."""
    whys = [outside(row) for row in cells]
    return [row for row, why in zip(cells, whys, strict=True) if not why], dict(Counter(filter(None, whys)))


def check_streaming(path: Path | None = None) -> tuple[Check, Check]:
    """Speeds of dense models that are mapped, and of mixtures of experts read from disk; nothing is fitted.

    Args:
        path: Rows to predict; None: the shipped ones.

    Raises:
        BadDataError: Columns are missing, or a number is none.
    """
    quotients: dict[bool, list[float]] = {True: [], False: []}
    skipped = {True: 0, False: 0}
    rows, refused = _inside(read_cells("streaming.csv", path, "streaming"))
    for cells in rows:
        size, disk, speed, ram, card, active, params = cells.numbers(
            "model_bytes", "storage_read_gb_s", "tokens_per_s", "ram_bytes_or_budget", "vram_bytes",
            "active_params_b", "params_b",
        )  # fmt: skip
        moe = cells["arch"].startswith("moe")
        if (
            not (size and disk and speed and ram)
            or "sparse" in cells["arch"]
            or (moe and (not (active and params) or "mmap" in cells.get("notes", "")))
        ):
            skipped[moe] += 1
            continue
        if moe:
            hit = hit_ratio(256, 256 * min(_CACHE_RATIO * (ram + card) / size, 1.0))
            read = size * active / params
            seconds = streamed_token_s(ROUTED_RATIO * read, hit, disk * 1e9, read / _HOST_BYTES_PER_S)
        else:
            mapped = max(size - card, 0.0)
            compute_s = mapped / _HOST_BYTES_PER_S + min(size, card) / _CARD_BYTES_PER_S
            limited = "limit" in cells.get("system", "").lower()
            seconds = compute_s + mmap_read_s(mapped, ram, BUSY_DISK_RATIO * disk * 1e9, limited=limited)
        quotients[moe].append(1 / seconds / speed)
    return (
        check_of("streaming, dense, mapped", quotients[False], len(quotients[False]) + skipped[False], refused),
        check_of("streaming, mixture of experts", quotients[True], len(quotients[True]) + skipped[True]),
    )


def check_of(name: str, quotients: list[float], all_count: int, refused: dict[str, int] | None = None) -> Check:
    """Errors of predicted / measured; ``all_count`` rows were there beside those that were refused."""
    values = np.array(quotients)
    return Check(
        name=name,
        rows_count=len(values),
        skipped_count=all_count - len(values),
        median_ratio=float(np.median(np.abs(values - 1))) if quotients else None,
        within_ratio=float(np.mean((values > 1 / 1.3) & (values < 1.3))) if quotients else None,
        refused=refused or {},
    )
