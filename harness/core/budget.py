"""What a release may cost: budgets for the gate."""

from typing import Annotated, Any, Final

from msgspec import Meta

from harness.core.base import Frozen
from harness.core.device import Speed
from harness.core.metric import MetricName
from harness.core.placement import Placement
from harness.core.scenario import Scenario

OF_THE_RUN: Final = (
    *("machine", "memory_limit_bytes", "target", "model_sha256", "quant"),
    *("runtime", "runtime_version", "variant", "draft"),
)
"""Pins that are neither a setting nor a placement."""
PINS: Final = (
    *OF_THE_RUN,
    *(name for name in Scenario.__struct_fields__ if name != "placement"),
    *Placement.__struct_fields__,
)
"""Keys that a budget may pin: those of the run, then every field of its scenario and of its placement, so that a new
field of either cannot be forgotten."""


class Budget(Frozen):
    """One limit on one metric: exactly one of the fields that set a limit is filled.

    Attributes:
        workload: What was measured: ``generate``, ``speculate``, ``stream``, ``quality``,
            ``load``, or a workload.
        label: Test label such as ``tg128``; empty for the metric's usual one.
        baseline_ratio: Least share of the baseline's speed (or greatest multiple of its cost).
        prediction_ratio: Least share of the predicted speed (or greatest multiple of the predicted cost).
        slowdown_ratio: A slowdown against the baseline that must be found: the budget is broken by a build
            that is slower beyond noise, by more than half of that.
        roofline_ratio: Least share of the roofline: of the speed that bandwidth alone would allow. Decode
            only.
        predicted: Judge the prediction for ``device`` instead of a measurement.
        undecided_days: Days without a conclusive answer after which an undecided one counts as broken; None:
            never.
        undecided_builds: Likewise builds in a row.
        pin: What a run must be, beside its names, for the budget to judge it: machine, model file,
            quantisation, runtime, fields of its scenario.
    """

    metric: MetricName
    device: str = "*"
    model: str = "*"
    workload: str = "generate"
    label: str = ""
    floor: Speed | None = None
    ceiling: Speed | None = None
    baseline_ratio: Speed | None = None
    slowdown_ratio: Annotated[float, Meta(gt=0, lt=1)] | None = None
    prediction_ratio: Speed | None = None
    roofline_ratio: Speed | None = None
    predicted: bool = False
    undecided_days: Annotated[int, Meta(ge=1)] | None = None
    undecided_builds: Annotated[int, Meta(ge=1)] | None = None
    pin: dict[str, Any] = {}
