"""What the laws are set beside: a constant that is as blind as they are, and what two sources of one test differ by."""

import math
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from harness.speed.published.errors_of_rows import Judged, hardware_of
from harness.speed.published.rows import PublishedRow, is_trusted, predictable


def blind_constants(rows: Iterable[PublishedRow]) -> dict[str, float]:
    """Median error of a constant share of the data sheet that saw neither the chip nor the source of a row.

    By group of rows, and by hardware and phase; of predictable, trusted rows.
    """
    sets: dict[str, list[PublishedRow]] = defaultdict(list)
    for row in filter(is_trusted, predictable(rows)):
        sets[row.group].append(row)
        sets[f"{hardware_of(row)}, {'prompts' if row.phase == 'prefill' else 'decode'}"].append(row)
    return {name: _blind_constant(own) for name, own in sets.items()}


def other_sources(rows: Iterable[PublishedRow]) -> list[Judged]:
    """Each trusted row as what others measured of the same test says it, their geometric mean: nobody can know better.

    A test is a chip, an api, a runtime and its threads, a model in a quantisation, and tokens of the prompt and before
    it within a factor of two.
    """
    tests: dict[tuple[object, ...], list[PublishedRow]] = defaultdict(list)
    for row in filter(is_trusted, predictable(rows)):
        assert row.work is not None
        machine, model = row.machine, (row.phase, row.work.model, row.work.type_name)
        tokens = [round(math.log2(1 + count / 256)) for count in (row.token_count, row.depth_tokens)]
        tests[row.chip, machine.api, machine.runtime, machine.traits.core_count, *model, *tokens].append(row)
    return [
        Judged(row, row.token_count / math.exp(np.mean(others)))
        for rows in tests.values()
        for row in rows
        if (others := [other.ln_s for other in rows if other.source != row.source])
    ]


def _blind_constant(rows: Iterable[PublishedRow]) -> float:
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
