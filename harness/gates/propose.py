"""Propose budgets from a history of runs: what the machine reached, less what its own noise may take."""

from collections.abc import Sequence
from math import ceil, log10
from math import floor as floor_of

import msgspec

from harness.catalog._toml import dump
from harness.domain.budget import HIGHER_IS_BETTER, Budget, Metric
from harness.domain.record import RunRecord
from harness.records.metrics import metric_values
from harness.stats.intervals import quantile_interval

_METRICS: tuple[Metric, ...] = ("decode_tokens_per_s", "prefill_tokens_per_s", "ttft_s", "peak_memory_bytes")
LEAST_MARGIN_RATIO = 0.05
"""Room left between the worst end of the interval and the limit, so that an unchanged build passes."""


def propose(records: Sequence[RunRecord]) -> list[Budget]:
    """One budget for each device, model and metric that the runs speak of.

    The limit lies ``LEAST_MARGIN_RATIO`` beyond the worse end of the median's 95 % interval (or beyond the worst value,
    where the values are too few for one), rounded to three digits away from the values.
    """
    groups: dict[tuple[str, str, str], list[RunRecord]] = {}
    for record in records:
        if record.outcome == "ok" and record.model is not None:
            groups.setdefault((record.machine.device, record.model.name, record.workload), []).append(record)
    budgets = []
    for (device, model, workload), runs in sorted(groups.items()):
        found = ((metric, [v for r in runs for v in metric_values(r, metric)]) for metric in _METRICS)
        budgets += [_budget(device, model, workload, metric, values) for metric, values in found if values]
    return budgets


def to_toml(budgets: Sequence[Budget]) -> str:
    """Budgets as the text of a budgets.toml file."""
    fields = [{k: v for k, v in msgspec.to_builtins(b).items() if v not in (None, "", False)} for b in budgets]
    return dump({"budget": fields})


def _budget(device: str, model: str, workload: str, metric: Metric, values: Sequence[float]) -> Budget:
    estimate, higher = quantile_interval(values), metric in HIGHER_IS_BETTER
    end = estimate.low if higher else estimate.high
    worst = (min if higher else max)(values) if end is None else end
    limit = _three_digits(worst * (1 + LEAST_MARGIN_RATIO * (-1 if higher else 1)), up=not higher)
    floor, ceiling = (limit, None) if higher else (None, limit)
    return Budget(metric=metric, device=device, model=model, workload=workload, floor=floor, ceiling=ceiling)


def _three_digits(value: float, *, up: bool) -> float:
    if value <= 0:
        return value
    step = 10.0 ** (floor_of(log10(value)) - 2)
    return float(f"{(ceil if up else floor_of)(value / step) * step:.12g}")
