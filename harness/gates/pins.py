"""What a budget holds a run to beside its name: another file, setting or machine is no evidence for it."""

from typing import Any, Final

from harness.core.budget import PINS, Budget
from harness.core.record import Record

_OF_THE_MODEL: Final = frozenset({"model_sha256", "quant"})
_OF_THE_BUILD: Final = frozenset({"model_sha256", "runtime_version"})
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
    values: dict[str, Any] = {
        "machine": f"{machine.cpu_model}, {machine.core_count} cores",
        "memory_limit_bytes": record.extra.get("memory_limit_bytes", limit),
        "target": record.target,
        "model_sha256": record.model.sha256 if record.model else "",
        "quant": record.quant,
        "runtime": record.runtime,
        "runtime_version": record.engine.version if record.engine else "",
    }
    for name in PINS[len(values) :]:
        part = scenario if hasattr(scenario, name) else scenario.placement
        values[name] = getattr(part, name)
    return values


def kind_of(record: Record) -> str:
    """Equal for runs that differ in nothing but build and day, and so may be taken together."""
    return repr((record.machine.device, record.name, lasting(pins_of(record))))


def lasting(pins: dict[str, Any]) -> dict[str, Any]:
    """Those that another build leaves as they are, by name."""
    return {key: value for key, value in sorted(pins.items()) if key not in _OF_THE_BUILD}


def difference(budget: Budget, record: Record) -> str:
    """How a run differs from what a budget pins, in words; empty where it does not.

    Of a run that got nowhere, what nobody knows of its model and engine does not count.
    """
    values = pins_of(record)
    unknown = set()
    if record.model is None:
        unknown = {key for key in (*_OF_THE_MODEL, *_OF_THE_BUILD) if not values[key]}
    return "; ".join(
        f"{key} is {values[key]!r}, pinned is {pinned!r}"
        for key, pinned in budget.pin.items()
        if key not in unknown and values[key] != pinned
    )


def unlike(run: Record, baseline: Record) -> str:
    """What makes a run no baseline of another, in words: another machine, quantisation or setting.

    Empty for nothing.

    The runtime's version and the model's file may differ: they are what is compared.
    """
    new = pins_of(run)
    old = pins_of(baseline)
    return "; ".join(
        f"{key} is {old[key]!r}, of the run {new[key]!r}"
        for key in PINS
        if key not in _OF_THE_BUILD and new[key] != old[key]
    )
