"""What a record says in a few numbers, computed from its raw samples each time it is asked."""

from statistics import median
from typing import Final

import numpy as np

from harness.domain.base import Frozen
from harness.domain.record import Phase, RunRecord, Sample

TEST_PHASES: Final[tuple[Phase, ...]] = ("prefill", "decode", "workload")
"""Phases whose samples must be clean for a run to be believed."""


class TestFigures(Frozen, frozen=True, kw_only=True):
    """One test of a run.

    Attributes:
        clean_count: Samples that count.
        disturbed_count: Samples that do not, beside warm-ups.
        tokens_per_s: Median rate; None for tests without tokens.
        duration_s: Median duration; None without a clean sample.
        doubted_per_s: Median rate of the disturbed samples, to be shown and never believed; None without any.
        doubted_s: Their median duration.
    """

    phase: Phase
    label: str
    clean_count: int
    disturbed_count: int
    tokens_per_s: float | None
    duration_s: float | None
    doubted_per_s: float | None = None
    doubted_s: float | None = None


class Latency(Frozen, frozen=True, kw_only=True):
    """Time of single tokens over all clean decode samples of a label."""

    label: str
    token_count: int
    p50_s: float
    p90_s: float
    p99_s: float


class Summary(Frozen, frozen=True, kw_only=True):
    """All figures of a run."""

    tests: tuple[TestFigures, ...]
    latency: tuple[Latency, ...]

    def test(self, phase: Phase, label: str = "") -> TestFigures | None:
        """The test of that phase and label; without a label the phase's first at depth 0, else its first."""
        found = [t for t in self.tests if t.phase == phase and (not label or t.label == label)]
        return next((t for t in found if "@" not in t.label), found[0] if found else None)


def summarise(record: RunRecord) -> Summary:
    """Medians and latency quantiles of a record."""
    groups = tests_of(record)
    tests = tuple(_figures(phase, label, samples) for (phase, label), samples in groups.items())
    latency = []
    for (phase, label), samples in groups.items():
        times = [t for s in samples if not s.validity.doubts for t in s.token_times_s]
        if phase == "decode" and times:
            p50, p90, p99 = (float(q) for q in np.quantile(times, (0.5, 0.9, 0.99)))
            latency.append(Latency(label=label, token_count=len(times), p50_s=p50, p90_s=p90, p99_s=p99))
    return Summary(tests=tests, latency=tuple(latency))


def tests_of(record: RunRecord) -> dict[tuple[Phase, str], list[Sample]]:
    """Samples by phase and label, disturbed ones among them, in the order they were taken; no warm-ups."""
    groups: dict[tuple[Phase, str], list[Sample]] = {}
    for sample in record.samples:
        if not sample.warm_up:
            groups.setdefault((sample.phase, sample.label), []).append(sample)
    return groups


def times_of(record: RunRecord, phase: Phase, label: str) -> list[float]:
    """Seconds of one test, disturbed ones among them: of single tokens in decoding, else of whole samples."""
    samples = tests_of(record).get((phase, label), ())
    return [t for s in samples for t in (s.token_times_s if phase == "decode" else (s.duration_s,))]


def needed_count(repetitions: int) -> int:
    """Clean samples below which a test is not believed: at least half of those asked for, and three where asked."""
    return min(repetitions, max(3, -(-repetitions // 2)))


def disturbances(record: RunRecord, repetitions: int) -> list[str]:
    """Why a run is inconclusive: one line for each test with too few clean samples; empty for a run to believe."""
    lines = []
    for test in summarise(record).tests:
        if test.phase in TEST_PHASES and test.clean_count < needed_count(repetitions):
            total = test.clean_count + test.disturbed_count
            doubts = [d for s in tests_of(record)[test.phase, test.label] for d in s.validity.doubts]
            lines.append(
                f"{test.label}: only {test.clean_count} of {total} samples undisturbed; {_most_telling(doubts)}"
            )
    return lines


def _most_telling(doubts: list[str]) -> str:
    """One doubt of each kind (the words without the numbers), the most frequent kinds first."""
    kinds: dict[str, list[str]] = {}
    for doubt in doubts:
        kinds.setdefault("".join(c for c in doubt if not c.isdigit() and c not in ".%"), []).append(doubt)
    ordered = sorted(kinds.values(), key=len, reverse=True)
    return "; ".join(group[len(group) // 2] for group in ordered[:3]) or "too few samples"


def _figures(phase: Phase, label: str, samples: list[Sample]) -> TestFigures:
    sides: list[tuple[list[float], float | None]] = []
    for doubted in (False, True):
        taken = [s for s in samples if bool(s.validity.doubts) == doubted]
        rates = [s.token_count / s.duration_s for s in taken if s.token_count and s.duration_s > 0]
        sides.append(([s.duration_s for s in taken], median(rates) if rates and phase != "first_token" else None))
    (clean, clean_rate), (disturbed, disturbed_rate) = sides
    return TestFigures(
        phase=phase,
        label=label,
        clean_count=len(clean),
        disturbed_count=len(disturbed),
        tokens_per_s=clean_rate,
        duration_s=median(clean) if clean else None,
        doubted_per_s=disturbed_rate,
        doubted_s=median(disturbed) if disturbed else None,
    )
