"""Propose budgets from a history of runs: what the machine reached, less what its own noise may take."""

from collections.abc import Sequence
from math import ceil, floor, log10
from typing import Any, Final, Literal

import msgspec
import tomli_w

from harness.domain.budget import HIGHER_IS_BETTER, Budget, Metric
from harness.domain.record import RunRecord
from harness.gates.pins import pins_of
from harness.records.metrics import metric_values
from harness.stats.runs import estimate_of_runs, spread_of_runs

Preset = Literal["limits", "regression", "phone", "first-token"]
LEAST_MARGIN_RATIO: Final = 0.05
"""Room left between the worse end of the interval and the limit, so that an unchanged build passes."""
_PHONE_BYTES: Final = 200e6
_SLOWDOWN: Final[dict[str, Any]] = {"slowdown_ratio": 0.10, "confidence": 0.98}
"""At this level the slow side of an interval is left in one of a hundred cases."""
_SPEEDS: Final[tuple[Metric, ...]] = ("decode_tokens_per_s", "prefill_tokens_per_s")
_RULES: Final[dict[Preset, dict[Metric, str]]] = {
    "limits": dict.fromkeys((*_SPEEDS, "ttft_s", "peak_memory_bytes"), "limit"),
    "regression": dict.fromkeys(_SPEEDS, "slowdown"),
    "phone": dict.fromkeys(_SPEEDS, "slowdown") | {"peak_memory_bytes": "room"},
    "first-token": {"ttft_s": "limit"},
}
"""What each preset asks of which metrics."""


def propose(records: Sequence[RunRecord], preset: Preset = "limits") -> list[Budget]:
    """Budgets for each device, model and setting among the runs, pinned to them.

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
    return tomli_w.dumps({"budget": fields})


def _budgets(runs: Sequence[RunRecord], preset: Preset) -> list[Budget]:
    newest = runs[-1]
    names: dict[str, Any] = {"device": newest.machine.device, "model": newest.name, "workload": newest.workload}
    values = {metric: [v for r in runs if (v := metric_values(r, metric))] for metric in _RULES[preset]}
    return [
        Budget(metric=metric, pin=pins_of(newest), **names, **_limit(metric, rule, values[metric]))
        for metric, rule in _RULES[preset].items()
        if values[metric]
    ]


def _limit(metric: Metric, rule: str, runs: Sequence[Sequence[float]]) -> dict[str, Any]:
    if rule == "slowdown":
        return _SLOWDOWN
    if rule == "room":
        return {"ceiling": max(map(max, runs)) + _PHONE_BYTES}
    higher = metric in HIGHER_IS_BETTER
    estimate = estimate_of_runs(runs, spread_of_runs(runs), 0.95)
    end = estimate.low if higher else estimate.high
    worst = (min if higher else max)(v for values in runs for v in values) if end is None else end
    limit = worst * (1 + LEAST_MARGIN_RATIO * (-1 if higher else 1))
    step = 10.0 ** (floor(log10(limit)) - 2) if limit > 0 else 1.0
    rounded = float(f"{(floor if higher else ceil)(limit / step) * step:.12g}")
    return {"floor" if higher else "ceiling": rounded}
