"""Published speedups of speculative decoding and speeds of streaming, against the models of both."""

import csv
from collections.abc import Iterator
from importlib.resources import files
from typing import Final

import numpy as np

from harness.domain.base import Frozen
from harness.feasibility.moe import ROUTED_RATIO, hit_ratio, streamed_token_s
from harness.feasibility.speculative import Measured, measured_row, predicted_speedup
from harness.feasibility.streaming import mmap_read_s

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
        median_ratio: Median error |predicted / measured - 1|.
        within_ratio: Share within a factor 1.3.
    """

    name: str
    rows_count: int
    skipped_count: int
    median_ratio: float
    within_ratio: float


def _cells(name: str) -> Iterator[dict[str, str]]:
    text = (files("harness.feasibility") / "data" / name).read_text()
    yield from csv.DictReader(text.splitlines())


def check_speculation() -> Check:
    """Measured speedups from acceptance, draft length and device; constants from other devices only."""
    cells = list(_cells("spec_decode.csv"))
    rows = [row for row in map(measured_row, cells) if row is not None]
    quotients = []
    for row in rows:
        others = [other for other in rows if not _same_device(row, other)]
        predicted = predicted_speedup(row, others)
        if predicted is not None:
            quotients.append(predicted / row.speedup)
    return _check("speculative speedup, device left out", quotients, len(cells))


def _same_device(one: Measured, other: Measured) -> bool:
    return one.machine == other.machine if one.machine is not None else one.device == other.device


def check_streaming() -> tuple[Check, Check]:
    """Speeds of dense models that are mapped, and of mixtures of experts read from disk; nothing is fitted."""
    quotients: dict[bool, list[float]] = {True: [], False: []}
    skipped = 0
    for cells in _cells("streaming.csv"):
        size, disk, speed, ram, card, active, params = (
            float(cells[name] or 0)
            for name in (
                "model_bytes", "storage_read_gb_s", "tokens_per_s", "ram_bytes_or_budget", "vram_bytes",
                "active_params_b", "params_b",
            )
        )  # fmt: skip
        moe = cells["arch"].startswith("moe")
        if (
            not (size and disk and speed and ram)
            or "sparse" in cells["arch"]
            or (moe and (not active or "mmap" in cells["notes"]))
        ):
            skipped += 1
            continue
        if moe:
            hit = hit_ratio(256, 256 * min(_CACHE_RATIO * (ram + card) / size, 1.0))
            read = size * active / params
            seconds = streamed_token_s(ROUTED_RATIO * read, hit, disk * 1e9, read / _HOST_BYTES_PER_S)
        else:
            mapped = max(size - card, 0.0)
            compute_s = mapped / _HOST_BYTES_PER_S + min(size, card) / _CARD_BYTES_PER_S
            seconds = compute_s + mmap_read_s(mapped, ram, disk * 1e9)
        quotients[moe].append(1 / seconds / speed)
    return (
        _check("streaming, dense, mapped", quotients[False], len(quotients[False]) + skipped),
        _check("streaming, mixture of experts", quotients[True], len(quotients[True]) + skipped),
    )


def _check(name: str, quotients: list[float], all_count: int) -> Check:
    values = np.array(quotients)
    return Check(
        name=name,
        rows_count=len(values),
        skipped_count=all_count - len(values),
        median_ratio=float(np.median(np.abs(values - 1))),
        within_ratio=float(np.mean((values > 1 / 1.3) & (values < 1.3))),
    )
