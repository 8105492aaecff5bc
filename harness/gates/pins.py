"""What a budget holds a run to beside its name: another file, setting, engine or machine is no evidence for it."""

from collections.abc import Collection, Sequence
from pathlib import PurePath
from statistics import median
from typing import Any, Final

from harness.core.budget import OF_THE_RUN, PINS, Budget
from harness.core.grouping import grouped
from harness.core.metric import FIGURES, MetricName, metric_values
from harness.core.record import Record
from harness.gates.sittings import time_of

_OF_THE_MODEL: Final = frozenset({"model_sha256", "quant"})
_ANCHORED_BUILDS: Final = 20
_ENOUGH_RUNS: Final = 3
OF_THE_BUILD: Final = frozenset({"model_sha256", "runtime_version"})
"""What may differ between a build and its baseline."""


def pins_of(record: Record) -> dict[str, Any]:
    """Everything of a run that a budget may pin, by the names of ``PINS``.

    The machine is its class: the processor as the system names it, and how many cores. Two runners of one
    class are one machine to a budget; their spread from run to run is what the gate learns. A memory limit of
    0 is none.
    """
    machine = record.machine
    scenario = record.scenario
    limit = machine.memory_limit_bytes
    if limit >= machine.ram_bytes:
        limit = 0
    engine = record.engine
    draft = getattr(record.result, "draft", "")
    values: dict[str, Any] = {
        "machine": f"{machine.cpu_model}, {machine.core_count} cores",
        "memory_limit_bytes": record.extra.get("memory_limit_bytes", limit),
        "target": record.target,
        "model_sha256": record.model.sha256 if record.model else "",
        "quant": record.quant,
        "runtime": record.runtime,
        "runtime_version": engine.version if engine else "",
        "variant": engine.variant if engine else "",
        "draft": PurePath(draft).name if isinstance(draft, str) else "",
    }
    for name in PINS[len(OF_THE_RUN) :]:
        part = scenario if hasattr(scenario, name) else scenario.placement
        value = getattr(part, name)
        values[name] = list(value) if isinstance(value, tuple) else value
    return values


def build_of(record: Record) -> tuple[str, ...]:
    """The build that a run is of: model file, runtime, its version and what its library says of itself."""
    engine = record.engine
    said = (engine.name, engine.version, engine.build, engine.variant) if engine else ()
    return (record.runtime, record.model.sha256 if record.model else "", *said)


def kind_of(record: Record) -> str:
    """Equal for runs that differ in nothing but build and day, and so may be taken together."""
    return repr((record.machine.device, record.name, lasting(pins_of(record))))


def lasting(pins: dict[str, Any]) -> dict[str, Any]:
    """Those that another build leaves as they are, by name."""
    return {key: value for key, value in sorted(pins.items()) if key not in OF_THE_BUILD}


def difference(budget: Budget, record: Record, differs: Collection[str] = ()) -> str:
    """How a run differs from what a budget pins, in words; empty where it does not.

    Of a run that got nowhere, what nobody knows of its model and engine does not count; nor do the pins that
    ``differs`` names.
    """
    values = pins_of(record)
    unknown = set(differs)
    if record.model is None:
        unknown |= {key for key in (*_OF_THE_MODEL, *OF_THE_BUILD, "variant", "draft") if not values[key]}
    return "; ".join(
        f"{key} is {values[key]!r}, pinned is {pinned!r}"
        for key, pinned in budget.pin.items()
        if key not in unknown and values[key] != pinned
    )


def unlike(run: Record, baseline: Record, differs: Collection[str] = ()) -> str:
    """Say in words why a run is no baseline of another: another model, machine, engine variant or setting.

    The text is empty if the run is one. The runtime's version and the model's file may differ, since those
    are compared, and so may the fields that ``differs`` names.
    """
    new = pins_of(run)
    old = pins_of(baseline)
    apart = [
        f"{key} is {old[key]!r}, of the run {new[key]!r}"
        for key in PINS
        if key not in OF_THE_BUILD and key not in differs and new[key] != old[key]
    ]
    if run.name != baseline.name:
        apart.insert(0, f"it is of {baseline.name}, the run of {run.name}")
    return "; ".join(apart)


def newest_build(runs: Sequence[Record]) -> tuple[list[Record], int]:
    """The runs of the newest build among some of one kind, and how many of older builds are left out."""
    last = max(runs, key=time_of)
    own = [run for run in runs if build_of(run) == build_of(last)]
    return own, len(runs) - len(own)


def anchor(runs: Sequence[Record], metric: MetricName, label: str = "") -> tuple[list[Record], int]:
    """The runs of the best build among the last twenty of a baseline, and how many builds there are.

    Beside the release before it, one that is 2 % slower passes for ever; beside the best one the loss adds up.
    Builds of fewer runs than others (up to three) stand back: the best of single runs is mostly luck.
    """
    builds = sorted(grouped(runs, build_of).values(), key=lambda own: max(map(time_of, own)))[
        -_ANCHORED_BUILDS:
    ]
    enough = min(_ENOUGH_RUNS, max(map(len, builds)))
    best = max if FIGURES[metric].higher_is_better else min
    middles = []
    for own in builds:
        values = [median(taken) for run in own if (taken := metric_values(run, metric, label))]
        if len(own) >= enough and values:
            middles.append((median(values), own))
    if not middles:
        return list(runs), len(builds)
    return best(middles, key=lambda one: one[0])[1], len(builds)
