"""A judgement in words: the same wording in every format."""

from harness.domain.budget import HIGHER_IS_BETTER, Budget
from harness.gates.judge import Judgement
from harness.printable import clean
from harness.records.metrics import UNITS
from harness.units import format_bytes, format_seconds


def title(budget: Budget) -> str:
    """What a budget speaks of: ``decode_tokens_per_s tg128, smollm2-135m on raspberry-pi-5``."""
    label = f" {budget.label}" if budget.label else ""
    what = "" if budget.workload == "generate" else f"{budget.workload}: "
    return clean(f"{what}{budget.metric}{label}, {budget.model} on {budget.device}", 300)


def quantity(value: float | None, judgement: Judgement) -> str:
    """A value in the judgement's own terms: a unit, or a ratio to what it is relative to."""
    if value is None:
        return "-"
    if judgement.relative_to:
        return f"{value:.3f} x {judgement.relative_to}"
    unit = UNITS[judgement.budget.metric]
    if unit == "bytes":
        return format_bytes(value)
    if unit == "s":
        return format_seconds(value)
    return f"{value:.4g} {unit}"


def limit(judgement: Judgement) -> str:
    """The limit with its direction: ``at least 0.970 x baseline``."""
    side = "at least" if judgement.budget.metric in HIGHER_IS_BETTER else "at most"
    return f"{side} {quantity(judgement.limit, judgement)}"


def interval(judgement: Judgement) -> str:
    """The value with its interval."""
    if judgement.low is None or judgement.high is None:
        return quantity(judgement.value, judgement)
    ends = f"{quantity(judgement.low, judgement)} .. {quantity(judgement.high, judgement)}"
    return f"{quantity(judgement.value, judgement)} [{ends}]"


def detectable(judgement: Judgement) -> str:
    """Smallest slowdown that would have been seen."""
    return "-" if judgement.detectable_ratio is None else f"{judgement.detectable_ratio:.1%}"
