"""What systems add to the core's verbs: what lives beside a model (``fit --with``), counted as the run counts it."""

from collections.abc import Callable
from statistics import median

from harness.core.device import Device
from harness.core.model import Weights
from harness.core.scenario import Scenario
from harness.memory.co_resident import Companion
from harness.workloads import TRACE_ENDING
from harness.workloads.chain import Op, RecordedPass, law_of
from harness.workloads.measuring import plan_of
from harness.workloads.system import load, names, size_of
from harness.workloads.system_child import SystemJob
from harness.workloads.system_parts import ENCODER_TOKENS, scenario_of

_TEXT = RecordedPass(part="encoder", op=Op.EMBED, tokens=16)
"""An embedded text of usual length."""


def companions() -> tuple[list[str], Callable[[str, Weights], Companion]]:
    """Names that ``fit --with`` takes, and what makes one of ``NAME``, ``NAME:SIZE`` or the file of a trace."""
    return [*names(), f"*{TRACE_ENDING}"], companion


def companion(text: str, weights: Weights) -> Companion:
    """What a system holds beside a model that is its language model, what it draws, and how long its steps take.

    Raises:
        UnknownNameError: No such system or size.
        RefusedError: A parameter that it does not have.
    """
    is_trace = text.endswith(TRACE_ENDING)
    name, size = (text, "") if is_trace else text.partition(":")[::2]
    plan = plan_of(SystemJob(name=name, size=size_of(load(name), size or "default")), weights)
    system, own_size = plan.system, plan.job.size
    held_bytes = system.apart_bytes + system.held_bytes(own_size, {**plan.weights, "language": weights})
    for part in plan.weights:
        held_bytes += plan.bytes_of(part, scenario_of(ENCODER_TOKENS, 1), None)
    if system.opens_again:
        again = plan._replace(weights={"language": weights})
        held_bytes += again.bytes_of("language", scenario_of(system.context_tokens, 1), None)
    file_bytes = sum(one.tensor_bytes for one in plan.weights.values())

    def drawn(device: Device) -> float:
        """Bytes/s of the encoder, the one model beside the model: its weights once a text of usual length."""
        seconds = law_of(plan.weights, device, Scenario())(_TEXT)
        return file_bytes / seconds if seconds else 0.0

    def steps(device: Device, scenario: Scenario) -> dict[str, float | None]:
        """Median seconds of each kind of step; None if a pass has no law."""
        apart, main = (
            law_of(plan.weights, device, Scenario()),
            law_of({"language": weights}, device, scenario),
        )
        found = dict[str, float | None]()
        for step, cases in system.passes(own_size).items():
            taken = [[(main if one.part == "language" else apart)(one) for one in case] for case in cases]
            is_known = all(None not in case for case in taken)
            found[step] = median(sum(filter(None, case)) for case in taken) if is_known else None
        return found

    shown = system.name if is_trace else f"{name} {size or 'default'}"
    return Companion(shown, held_bytes, file_bytes, system.title, drawn, steps)
