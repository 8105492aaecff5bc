"""What systems add to the core's verbs: what lives beside a model (``fit --with``), a section of a report."""

from collections.abc import Callable

from harness.domain.device import DeviceProfile
from harness.domain.record import RunRecord
from harness.domain.result import SystemResult
from harness.predict.co_resident import Companion
from harness.report.panels import Panel
from harness.workloads.parts.minilm import ANONYMOUS_BYTES
from harness.workloads.predict import machine_there, predict_steps
from harness.workloads.system import Cost, load, names, size_of

_ASSUMED_PARTS = frozenset({"encoder", "language"})
"""The model itself is the language model; an encoder is the one that is fetched where none is named."""


def companions() -> tuple[list[str], Callable[[str], Companion]]:
    """Names that ``fit --with`` takes, and what makes one of ``NAME`` or ``NAME:SIZE``."""
    return names(), companion


def companion(text: str) -> Companion:
    """What a system holds beside the model, and what it draws from memory.

    Raises:
        UnknownNameError: No such system or size.
        RefusedError: A parameter that it does not have.
    """
    name, _, size = text.partition(":")
    system = load(name)
    chosen = size_of(system, size or "default")
    taken = {part for wanted in system.parts for part in wanted.removesuffix("?").split("|")} & _ASSUMED_PARTS
    costs = system.cost(taken, chosen)
    has_encoder = any(one.part == "encoder" for cost in costs.values() for one in cost.passes)
    return Companion(
        f"{name} {size or 'default'}",
        max(cost.resident_bytes for cost in costs.values()) + (ANONYMOUS_BYTES if has_encoder else 0),
        max(cost.file_bytes for cost in costs.values()),
        f"{', '.join(costs)}{', with the sentence encoder MiniLM' if has_encoder else ''}",
        lambda device: max(_drawn(cost, device) for cost in costs.values()),
    )


def _drawn(cost: Cost, device: DeviceProfile) -> float:
    """Bytes/s of a step's own reading, without its passes: those of an encoder draw little, as its products decide."""
    (step,) = predict_steps({"": cost.replace(passes=())}, machine_there(device, None, {}))
    return cost.moved_bytes / step.latency_s.mid if step.latency_s and step.latency_s.mid else 0.0


def panel(record: RunRecord) -> Panel | None:
    """The section of a system's run in a report; None for any other record."""
    if not isinstance(record.result, SystemResult):
        return None
    from harness.workloads.run import compare
    from harness.workloads.table import STEP_COLUMNS, figures, parts_of, step_cells

    return Panel(
        title="Systems",
        label=f"{record.workload}, parts: {parts_of(record)}",
        outcome=f"{record.outcome}: {record.detail}" if record.detail else record.outcome,
        columns=STEP_COLUMNS,
        rows=[step_cells(step) for step in compare(record)],
        facts=figures(record),
    )
