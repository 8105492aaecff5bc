"""Propose budgets from a history of runs: what the machine reached, less what its own noise may take."""

from collections.abc import Sequence
from math import ceil, log10
from math import floor as floor_of
from typing import Any, Final, Literal, get_args

import msgspec

from harness.catalog._toml import dump
from harness.domain.budget import HIGHER_IS_BETTER, Budget, Metric
from harness.domain.record import RunRecord
from harness.gates.pins import pins_of
from harness.gates.runs import spread_of_runs, value_of_runs
from harness.records.metrics import metric_values

Preset = Literal["limits", "regression", "phone", "first-token"]
PRESETS: Final[tuple[Preset, ...]] = get_args(Preset)
LEAST_MARGIN_RATIO: Final = 0.05
"""Room left between the worse end of the interval and the limit, so that an unchanged build passes."""
_SLOWDOWN_RATIO: Final = 0.10
_FALSE_IN_100: Final = 0.98
"""Level of an interval whose slow side is left in one of a hundred cases."""
_PHONE_BYTES: Final = 200e6
_SPEEDS: Final[tuple[Metric, ...]] = ("decode_tokens_per_s", "prefill_tokens_per_s")


def propose(records: Sequence[RunRecord], preset: Preset = "limits") -> list[Budget]:
    """Budgets for each device, model and setting that the runs speak of, pinned to them.

    ``limits`` hold speed, first token and memory to what was reached: the limit lies ``LEAST_MARGIN_RATIO`` beyond the
    worse end of the 95 % interval, rounded to three digits away from it. ``regression`` finds speeds that are 10 %
    below the baseline's. ``phone`` does the same, and holds memory to 200 MB more than was measured (what PocketPal's
    developers allow between releases, on the same model, quantisation, backend and settings). ``first-token`` limits
    that alone.
    """
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        if record.outcome == "ok" and record.model is not None:
            kind = (record.machine.device, record.name, record.workload, pins_of(record))
            groups.setdefault(repr(kind), []).append(record)
    return [budget for _, runs in sorted(groups.items()) for budget in _budgets(runs, preset)]


def to_toml(budgets: Sequence[Budget]) -> str:
    """Budgets as the text of a budgets.toml file."""
    usual = {"inconclusive_limit": 3, "confidence": 0.95, "label": "", "predicted": False}
    fields = [
        {k: v for k, v in msgspec.to_builtins(b).items() if v is not None and usual.get(k) != v and v != {}}
        for b in budgets
    ]
    return dump({"budget": fields})


def _budgets(runs: Sequence[RunRecord], preset: Preset) -> list[Budget]:
    newest = runs[-1]
    given: dict[str, Any] = {
        "device": newest.machine.device,
        "model": newest.name,
        "workload": newest.workload,
        "pin": pins_of(newest),
    }
    of_metric = {metric: [v for r in runs if (v := metric_values(r, metric))] for metric in (*_SPEEDS, "ttft_s")}
    peaks = [v for r in runs for v in metric_values(r, "peak_memory_bytes")]
    budgets = []
    if preset in {"regression", "phone"}:
        speeds = [metric for metric in _SPEEDS if of_metric[metric]]
        rule: dict[str, Any] = {"slowdown_ratio": _SLOWDOWN_RATIO, "confidence": _FALSE_IN_100}
        budgets += [Budget(metric=metric, **rule, **given) for metric in speeds]
    if preset == "phone" and peaks:
        budgets.append(Budget(metric="peak_memory_bytes", ceiling=max(peaks) + _PHONE_BYTES, **given))
    if preset == "limits":
        budgets += [_limit(metric, of_metric[metric], given) for metric in _SPEEDS if of_metric[metric]]
    if preset in {"limits", "first-token"} and of_metric["ttft_s"]:
        budgets.append(_limit("ttft_s", of_metric["ttft_s"], given))
    if preset == "limits" and peaks:
        budgets.append(_limit("peak_memory_bytes", [[peak] for peak in peaks], given))
    return budgets


def _limit(metric: Metric, runs: Sequence[Sequence[float]], given: dict[str, Any]) -> Budget:
    higher = metric in HIGHER_IS_BETTER
    estimate = value_of_runs(runs, spread_of_runs(runs), 0.95)
    end = estimate.low if higher else estimate.high
    worst = (min if higher else max)(v for values in runs for v in values) if end is None else end
    limit = _three_digits(worst * (1 + LEAST_MARGIN_RATIO * (-1 if higher else 1)), up=not higher)
    floor, ceiling = (limit, None) if higher else (None, limit)
    return Budget(metric=metric, floor=floor, ceiling=ceiling, **given)


def _three_digits(value: float, *, up: bool) -> float:
    if value <= 0:
        return value
    step = 10.0 ** (floor_of(log10(value)) - 2)
    return float(f"{(ceil if up else floor_of)(value / step) * step:.12g}")
