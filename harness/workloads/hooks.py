"""What systems add to the core's verbs: what lives beside a model (``fit --with``), counted as the run counts it."""

from collections.abc import Callable

from harness.core.device import Device
from harness.core.scenario import Scenario
from harness.memory.co_resident import Companion
from harness.workloads.chain import Op, RecordedPass, law_of
from harness.workloads.measuring import plan_of
from harness.workloads.system import load, names, size_of
from harness.workloads.system_child import SystemJob

_USUAL_TOKENS = 16
"""Of a text that is embedded, about."""


def companions() -> tuple[list[str], Callable[[str], Companion]]:
    """Names that ``fit --with`` takes, and what makes one of ``NAME`` or ``NAME:SIZE``."""
    return names(), companion


def companion(text: str) -> Companion:
    """What a system holds beside the model, which is its language model, and what it draws from memory.

    Raises:
        UnknownNameError: No such system or size.
        RefusedError: A parameter that it does not have.
    """
    name, _, size = text.partition(":")
    plan = plan_of(SystemJob(name=name, size=size_of(load(name), size or "default")), is_beside=True)

    def drawn(device: Device) -> float:
        """Bytes/s of the encoder, the one part beside the model: its weights once a text of usual length."""
        law = law_of(plan.weights, device, Scenario())
        seconds = law(RecordedPass(part="encoder", op=Op.EMBED, tokens=_USUAL_TOKENS))
        return file_bytes / seconds if seconds else 0.0

    held_bytes = sum(filter(None, plan.held_bytes().values()))
    file_bytes = sum(weights.tensor_bytes for weights in plan.weights.values())
    return Companion(f"{name} {size or 'default'}", held_bytes, file_bytes, plan.system.title, drawn)
