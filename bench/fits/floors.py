"""What the laws are set beside: what two sources of one test differ by, and a constant that is as blind as they are."""

import math
from collections import defaultdict
from collections.abc import Iterable
from itertools import permutations

import numpy as np

from harness.domain.base import Frozen
from harness.published.rows import Row, is_trusted, predictable
from harness.published.score import hardware_of


class Floor(Frozen):
    """What two sources of one test differ by: |one / other - 1|, middle and 90th percentile of tests' medians.

    A test is a chip, api and runtime, a model by its weights, bytes and layers, and tokens of the prompt or before it
    within a factor of two.
    """

    tests_count: int
    pairs_count: int
    median_ratio: float
    p90_ratio: float


def floors_of(rows: Iterable[Row]) -> dict[str, Floor]:
    """What two sources of the same test differ by, by group and by group and hardware."""
    speeds: dict[tuple[object, ...], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in predictable(rows):
        assert row.work is not None
        work, threads = row.work, row.machine.traits.core_count if row.machine.side == "cpu" else 0
        model = f"{work.weight_count:.2g} {work.weight_bytes:.2g} {work.layer_count}"
        tokens = row.prompt.tokens if row.phase == "prefill" else row.depth_tokens
        test = round(math.log2(1 + tokens / 1024))
        key = (row.group, hardware_of(row), row.chip, row.machine.api, row.machine.runtime, threads, model, test)
        speeds[key][row.source].append(row.measured)
    gaps: dict[str, list[list[float]]] = defaultdict(list)
    for (group, hardware, *_), by_source in speeds.items():
        middles = [float(np.median(found)) for found in by_source.values()]
        if pairs := [abs(one / other - 1) for one, other in permutations(middles, 2)]:
            gaps[str(group)].append(pairs)
            gaps[f"{group}, {hardware}"].append(pairs)
    floors = {}
    for name, tests in sorted(gaps.items()):
        middle, most = np.quantile([np.median(pairs) for pairs in tests], (0.5, 0.9))
        pairs_count = sum(map(len, tests)) // 2
        floors[name] = Floor(
            tests_count=len(tests), pairs_count=pairs_count, median_ratio=float(middle), p90_ratio=float(most)
        )
    return floors


def blind_constants(rows: Iterable[Row]) -> dict[str, float]:
    """Median error of a constant share of the data sheet that saw neither the chip nor the source of a row.

    By group of rows, and by hardware and phase; of predictable, trusted rows.
    """
    sets: dict[str, list[Row]] = defaultdict(list)
    for row in filter(is_trusted, predictable(rows)):
        sets[row.group].append(row)
        sets[f"{hardware_of(row)}, {'prompts' if row.phase == 'prefill' else 'decode'}"].append(row)
    return {name: _blind_constant(own) for name, own in sets.items()}


def _blind_constant(rows: Iterable[Row]) -> float:
    ratios: dict[tuple[tuple[str, ...], str, str], list[float]] = defaultdict(list)
    for row in rows:
        ratios[row.vote, row.chip, row.source].append(row.promised / row.measured)
    chips, sources = (np.array([name[at] for name in ratios]) for at in (1, 2))
    errors = np.abs(np.geomspace(0.01, 3, 300)[:, None] * [float(np.median(own)) for own in ratios.values()] - 1)
    missed: list[float] = []
    for chip, source in sorted(set(zip(chips.tolist(), sources.tolist(), strict=True))):
        own, others = (chips == chip) & (sources == source), (chips != chip) & (sources != source)
        if others.any():
            missed += errors[np.median(errors[:, others], axis=1).argmin(), own].tolist()
    return float(np.median(missed)) if missed else math.nan
