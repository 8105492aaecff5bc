"""Published speedups of speculative decoding and speeds of streaming, against the models of both."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from harness.domain.base import Frozen
from harness.predict.moe import ROUTED_RATIO, hit_ratio, streamed_token_s
from harness.predict.speculative import measured_row, predicted_speedup
from harness.predict.streaming import BUSY_DISK_RATIO, mmap_read_s
from harness.published.cells import Cells, read_cells

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
        refused: Rows that the model does not cover, by reason; not among the others.
    """

    name: str
    rows_count: int
    skipped_count: int
    median_ratio: float | None
    within_ratio: float | None
    refused: dict[str, int] = {}


_OUTSIDE: Final = (
    ("method", r"tree", "a tree of drafts is verified: its budget is no draft length"),
    ("batch", r"^(?!1(\.0*)?$)\d", "several sequences share one reading of the weights"),
    ("system", r"flexgen|zero-inference", "an offloading server that trades latency for batch"),
    ("system device", r"\b(nodes|machines|devices|hosts)\b|cluster|distributed|\bd1\b.*\bd[2-9]\b", "several machines"),
)
"""Rows that the models of speculation and of streaming do not cover: columns, what stands in one of them, and why."""


def outside(raw: Mapping[str, str]) -> str:
    """Why the model of a row of speculation or streaming does not cover it; empty where it does."""
    said = (why for names, words, why in _OUTSIDE for n in names.split() if re.search(words, raw.get(n, "").lower()))
    return next(said, "")


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
    """Rows that the models cover, and how many they do not, by reason."""
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
