"""What a budget holds a run to beside its name: another file, setting or machine is no evidence for it."""

from typing import Any

from harness.domain.budget import PINS, Budget
from harness.domain.record import RunRecord


def pins_of(record: RunRecord) -> dict[str, Any]:
    """Everything of a run that a budget may pin, by the names of ``PINS``.

    The machine is its class: the processor as the system names it, and how many cores. Two runners of one class are one
    machine to a budget; their spread from run to run is what the gate learns.
    """
    machine, scenario = record.machine, record.scenario
    values: dict[str, Any] = {
        "machine": f"{machine.cpu_model}, {machine.core_count} cores",
        "model_sha256": record.model.sha256 if record.model else "",
        "quant": record.quant,
        "runtime": record.runtime,
    }
    for name in PINS[len(values) :]:
        values[name] = getattr(scenario, name, None) if hasattr(scenario, name) else getattr(scenario.placement, name)
    return values


def difference(budget: Budget, record: RunRecord) -> str:
    """How a run differs from what a budget pins, in words; empty where it does not."""
    values = pins_of(record)
    return "; ".join(
        f"{key} is {values[key]!r}, pinned is {pinned!r}" for key, pinned in budget.pin.items() if values[key] != pinned
    )
