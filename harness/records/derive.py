"""What a record says in a few numbers, computed from its raw samples each time it is asked."""

import re
from math import inf
from statistics import median
from typing import Final, Literal

import numpy as np

from harness.core.base import Frozen
from harness.core.grouping import grouped
from harness.core.record import Phase, Record, Sample

TEST_PHASES: Final[tuple[Phase, ...]] = ("prefill", "decode", "workload")
"""Phases whose samples must be clean for a run to be believed."""
_RATED: Final = frozenset(("prefill", "decode", "draft", "verify", "stream"))
"""Phases that are told as rates; a first token's time covers its whole prompt."""


_LIMITS: Final = ("mode", "budget_bytes", "schedule", "draft", "duty_ratio")
"""Fields of a result that say what its run was held to."""


class TestSummary(Frozen):
    """One test of a run: the median of its clean samples.

    Attributes:
        unit: Rates of tokens, or seconds: of a sample, or of one operation of a system.
        value: Median; None without a clean sample.
        least: Smallest clean sample; None without any. ``most`` is the largest one.
        sample_count: Clean samples.
        disturbed_count: Samples that were disturbed and do not count; warm-ups are in neither.
        doubted_value: Median of the disturbed samples, to be shown and never believed; None without any.
        token_p99_s: 99th percentile of the time of single tokens, of all clean samples; None where none were
            timed.
    """

    phase: Phase
    label: str
    unit: Literal["tokens/s", "s"]
    value: float | None
    least: float | None = None
    most: float | None = None
    sample_count: int = 0
    disturbed_count: int = 0
    doubted_value: float | None = None
    token_p99_s: float | None = None


class Tests(tuple[TestSummary, ...]):
    """All tests of a run."""

    def test(self, phase: Phase, label: str = "") -> TestSummary | None:
        """The test of that phase and label.

        Without one the phase's first that is warm, at depth 0 if any is.
        """
        found = [test for test in self if test.phase == phase]
        if label:
            return next((test for test in found if test.label == label), None)
        warm = [test for test in found if "@ cold" not in test.label]
        return min(warm, key=lambda test: "@" in test.label, default=None)


def setting_of(record: Record) -> tuple[str, ...]:
    """What runs have in common whose speeds can be compared, beside the model and the build."""
    machine = record.machine.fingerprint or record.machine.device
    return (record.workload, record.runtime, machine, repr(record.scenario))


def course_of(record: Record) -> tuple[str, ...]:
    """What runs must have in common to be one course over time: all but the build, the samples and the day.

    Beside the setting: the model's file, the target, and the limits that the run was held to.
    """
    limits: list[object] = [record.machine.memory_limit_bytes]
    limits += [record.extra.get(name) for name in ("memory_limit_bytes", "cpus", "nice")]
    limits += [getattr(record.result, name, None) for name in _LIMITS]
    limits += [level.offered for level in getattr(record.result, "levels", ())]
    sha256 = record.model.sha256 if record.model else ""
    return (record.name, record.quant, sha256, record.target, *setting_of(record), repr(limits))


def summarise(record: Record) -> Tests:
    """Medians and latencies of a record."""
    return Tests(_measured(phase, label, samples) for (phase, label), samples in tests_of(record).items())


def tests_of(record: Record) -> dict[tuple[Phase, str], list[Sample]]:
    """Samples by phase and label in the order they were taken: disturbed ones are among them, warm-ups are not."""
    timed = (sample for sample in record.samples if not sample.warm_up)
    return grouped(timed, lambda sample: (sample.phase, sample.label))


def speeds_of(record: Record) -> dict[str, float]:
    """Tokens/s of each test of prompts and of decoding, by its label: the median of the samples that count."""
    found = {}
    for test in summarise(record):
        if test.phase in {"prefill", "decode"} and test.value:
            found[test.label] = test.value
    return found


def times_of(record: Record, phase: Phase, label: str) -> list[float]:
    """Seconds of one test, disturbed ones among them: of single tokens in decoding, else of whole samples."""
    times_s: list[float] = []
    for sample in tests_of(record).get((phase, label), ()):
        times_s += sample.token_times_s if phase == "decode" else [sample.duration_s]
    return times_s


def needed_count(repetitions: int) -> int:
    """Clean samples below which a test is not believed: at least half of those asked for, and three where asked."""
    return min(repetitions, max(3, -(-repetitions // 2)))


def disturbances(record: Record, repetitions: int) -> list[str]:
    """Why a run is inconclusive: one line for each test with too few clean samples.

    A run that can be believed has no such line.
    """
    lines = []
    for (phase, label), samples in tests_of(record).items():
        clean_count = sum(not s.validity.doubts for s in samples)
        if phase in TEST_PHASES and clean_count < needed_count(repetitions):
            doubts = _most_telling([d for s in samples for d in s.validity.doubts])
            lines.append(f"{label}: only {clean_count} of {len(samples)} samples undisturbed; {doubts}")
    return lines


def _most_telling(doubts: list[str]) -> str:
    """One doubt of each kind (the words without the numbers), the most frequent kinds first."""
    kinds = grouped(doubts, lambda doubt: re.sub(r"[\d.%]", "", doubt))
    ordered = sorted(kinds.values(), key=len, reverse=True)
    return "; ".join(group[len(group) // 2] for group in ordered[:3]) or "too few samples"


def _measured(phase: Phase, label: str, samples: list[Sample]) -> TestSummary:
    is_rate = phase in _RATED
    values: dict[bool, list[float]] = {False: [], True: []}
    times_s: list[float] = []
    for sample in samples:
        is_doubted = bool(sample.validity.doubts)
        if not is_doubted:
            times_s += sample.token_times_s
        if value := _value(sample, is_rate=is_rate):
            values[is_doubted].append(value)
    clean = values[False]
    disturbed = values[True]
    return TestSummary(
        phase=phase,
        label=label,
        unit="tokens/s" if is_rate else "s",
        value=median(clean) if clean else None,
        least=min(clean, default=None),
        most=max(clean, default=None),
        sample_count=len(clean),
        disturbed_count=len(disturbed),
        doubted_value=median(disturbed) if disturbed else None,
        token_p99_s=float(np.quantile(times_s, 0.99)) if times_s else None,
    )


def _value(sample: Sample, *, is_rate: bool) -> float:
    """Tokens/s, or seconds: of one operation of a system; 0 where there is none."""
    if is_rate:
        return sample.token_count / (sample.duration_s or inf)
    operations = max(1, sample.token_count) if sample.phase == "workload" else 1
    return sample.duration_s / operations
