"""Published speedups of speculative decoding and speeds of streaming, against the models of both."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from harness.domain.base import Frozen
from harness.predict.decode import Machine
from harness.predict.moe import ROUTED_RATIO, hit_ratio, streamed_token_s
from harness.predict.speculative import SLOPE_PER_BALANCE, expected_tokens_per_cycle, verify_slope
from harness.predict.streaming import BUSY_DISK_RATIO, mmap_read_s
from harness.predict.traits import first_cells, traits_of
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


class Measured(NamedTuple):
    """One measured row of spec_decode.csv, its method without the build.

    ``tokens`` are those of a cycle, by acceptance and ``gamma``: 0 where the source gives tokens of a step alone.
    """

    device: str
    method: str
    machine: Machine | None
    gamma: int
    tokens: float
    draft_cost_ratio: float
    speedup: float
    moe: bool


def _measured(raw: Cells) -> Measured | None:
    """A row with an acceptance and a speedup; None for any other."""
    speedup, drafted, rate, mean, cost = raw.numbers(
        "speedup", "gamma", "acceptance_rate", "mean_accepted_tokens", "draft_cost_ratio_c"
    )
    gamma, kind, tokens = int(drafted), raw["acceptance_kind"], mean
    if kind.startswith("per-token") and gamma:
        tokens = expected_tokens_per_cycle(rate, gamma)
    elif kind.startswith("accepted/drafted") and gamma and rate:
        tokens = 1 + gamma * rate
    if not tokens or not speedup:
        return None
    device, method = raw["device"], re.split(r"[ ,]", raw["method"].lower())[0]
    moe = re.search(r"A\d+B", raw["target"]) is not None
    return Measured(device, method, _machine(device), gamma, tokens, cost, speedup, moe)


def _machine(device: str) -> Machine | None:
    if not (cells := first_cells("spec_devices.csv", device.lower())):
        return None
    api, size = cells[0], float(cells[1]) * 1e9
    name = "rtx 6000 ada" if "a6000" in device.lower() and size == 960e9 else device  # Ampere's has 768 GB/s
    return Machine(api, size, traits_of(name, api, size))


def fitted_slopes(rows: Sequence[Measured]) -> dict[str, float]:
    """Constants of ``verify_slope``: exp of the median of ln(slope x P / W), one vote a device.

    The slope is what the speedup implies: tokens / speedup = 1 + gamma s, the draft's own cost included.
    """
    found: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for row in rows:
        slope = (row.tokens / row.speedup - 1) / row.gamma if row.gamma else 0.0
        if row.machine is not None and slope > 0 and not row.moe:
            balance = row.machine.bandwidth_bytes_per_s / row.machine.traits.peak_flops_per_s
            found["metal" if row.machine.api == "metal" else "other"].append((row.device, math.log(slope / balance)))
    return {**SLOPE_PER_BALANCE, **{side: math.exp(_middle(slopes)) for side, slopes in found.items()}}


def _middle(values: Iterable[tuple[str, float]]) -> float:
    """Median over devices of the medians of their values; 0 without any."""
    by_device: dict[str, list[float]] = defaultdict(list)
    for device, value in values:
        by_device[device].append(value)
    return float(np.median([np.median(own) for own in by_device.values()])) if by_device else 0.0


def _predicted_speedup(row: Measured, others: Sequence[Measured]) -> float | None:
    """Speedup of one row from rows of other devices: their slopes, or the method's own cost of a step.

    Verification is free where a matrix processor's authors say so (TPU); an unknown device gets the median slope of all
    others, the draft's own cost left out.
    """
    if not row.gamma:
        same = [o.tokens / o.speedup for o in others if o.method == row.method and not o.gamma]
        return row.tokens / float(np.median(same)) if same else None
    if row.machine is not None:
        slope = max(verify_slope(row.machine, fitted_slopes(others)), 0.45 if row.moe else 0.0)
    elif "TPU" in row.device:
        slope = 0.0
    else:
        known = [o for o in others if o.gamma and o.machine is not None]
        slope = _middle((o.device, max((o.tokens / o.speedup - 1) / o.gamma - o.draft_cost_ratio, 0.0)) for o in known)
    return row.tokens / (1 + row.gamma * (slope + row.draft_cost_ratio))


def check_speculation(path: Path | None = None) -> Check:
    """Measured speedups from acceptance, draft length and device; constants from other devices only.

    Rows of ``path`` are predicted by the shipped ones; None: the shipped ones themselves.

    Raises:
        BadDataError: Columns are missing, or a number is none.
    """
    ours, _ = _inside(read_cells("spec_decode.csv", None, "speculation"))
    cells, refused = _inside(read_cells("spec_decode.csv", path, "speculation"))
    known, rows = ([row for row in map(_measured, of) if row is not None] for of in (ours, cells))
    quotients = []
    for row in rows:
        told = "device" if row.machine is None else "machine"
        predicted = _predicted_speedup(row, [other for other in known if getattr(row, told) != getattr(other, told)])
        if predicted is not None:
            quotients.append(predicted / row.speedup)
    return check_of("speculative speedup, device left out", quotients, len(cells), refused)


def _inside(cells: list[Cells]) -> tuple[list[Cells], dict[str, int]]:
    """Rows that the models cover, and how many they do not, by reason."""
    whys = [outside(row) for row in cells]
    return [row for row, why in zip(cells, whys, strict=True) if not why], dict(Counter(filter(None, whys)))


def check_streaming(path: Path | None = None) -> tuple[Check, Check]:
    """Speeds of dense models that are mapped, and of mixtures read from disk (None: shipped rows); nothing is fitted.

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
