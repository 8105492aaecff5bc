"""Whether a model runs with a context at all: open it, use it once, and end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from harness.domain.base import Frozen
from harness.domain.scenario import Scenario
from harness.runtimes.llamacpp.session import LlamaSession

UBATCH_TOKENS: Final = 64


class HoldJob(Frozen, frozen=True, kw_only=True):
    """What to open: a GGUF file, and the scenario with its context."""

    model: str
    scenario: Scenario


def run(arguments: dict[str, Any], emit: Callable[..., None]) -> None:
    """Child's entry; emits ``held`` with the context; EngineError where the engine refused the model or the context."""
    job = msgspec.convert(arguments, HoldJob)
    scenario = job.scenario
    with LlamaSession(Path(job.model), scenario, batch_tokens=UBATCH_TOKENS, output_tokens=1) as session:
        session.decode([0] * min(UBATCH_TOKENS, scenario.context_tokens - 1), position=0)
        session.decode([0], position=UBATCH_TOKENS)
        emit("held", scenario.context_tokens)
