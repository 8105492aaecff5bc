"""What systems add to the core's verbs: what lives beside a model (``fit --with``), counted as the run counts it."""

from collections.abc import Callable

from harness.domain.device import DeviceProfile
from harness.predict.co_resident import Companion
from harness.workloads.child import SystemJob, declare
from harness.workloads.parts import Parts
from harness.workloads.passes import Pass, total
from harness.workloads.run import Given, Plan, plan_of
from harness.workloads.system import names

_TOKEN_CHARS = 4
"""Characters of a token, about: a companion is counted before its tokenizer is opened."""


class _Guessed(Parts):
    """Parts that only count tokens, by the length of a text."""

    def tokenize(self, part: str, text: object) -> list[int]:
        """As many tokens as a text of that length has, about."""
        del part
        return [0] * (1 + len(str(text)) // _TOKEN_CHARS)


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
    plan = plan_of(name, Given(), size or "default", is_beside=True)
    held = plan.held_bytes(None) or 0
    file_bytes = sum(weights.tensor_bytes for weights in plan.weights.values())
    kinds = ", ".join(plan.system.columns())
    beside = ""
    if plan.parts:
        beside = f", with {', '.join(plan.parts)}"
    return Companion(
        f"{name} {size or 'default'}", held, file_bytes, f"{kinds}{beside}", lambda d: _drawn(plan, d)
    )


def _drawn(plan: Plan, device: DeviceProfile) -> float:
    """Bytes/s of the step that draws most: its own arrays, and its parts' weights once a pass."""
    law = plan.law(device)
    job = SystemJob(name=plan.system.name, size=plan.size)
    cases = plan.system.cases(plan.size, 1)[:200]
    drawn = 0.0
    for declared in declare(plan.system, cases, job, _Guessed()):
        known = [one for one in declared.passes if one.part != "language"]
        seconds = total(law, known)
        if seconds:
            drawn = max(drawn, sum(_moved(plan, one) for one in known) / seconds)
    return drawn


def _moved(plan: Plan, one: Pass) -> int:
    if one.part in plan.weights:
        return plan.weights[one.part].tensor_bytes
    return one.moved_bytes
