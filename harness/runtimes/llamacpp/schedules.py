"""Which way of streaming suits a model and a budget."""

from pathlib import Path
from typing import Literal

from harness.domain.scenario import Scenario
from harness.errors import RefusedError
from harness.runtimes.llamacpp.expert_cache import CachePolicy
from harness.runtimes.llamacpp.expert_layout import expert_layout_of
from harness.runtimes.llamacpp.expert_streaming import ExpertStreamedSession
from harness.runtimes.llamacpp.streaming import StreamedSession

Schedule = Literal["auto", "experts", "blocks"]


def open_streamed(
    path: Path,
    scenario: Scenario,
    budget_bytes: int,
    *,
    schedule: Schedule = "auto",
    policy: CachePolicy = "likely",
    batch_tokens: int = 32,
) -> tuple[StreamedSession | ExpertStreamedSession, str]:
    """Open a model under a budget.

    ``auto`` streams experts where a model has them and everything else fits, and blocks otherwise: where not even what
    every token reads fits, most of it has to be read in every pass anyway.

    Returns:
        The session, and why it streams blocks although the model has experts; empty otherwise.

    Raises:
        RefusedError: Not on this system, or the budget is too small.
        EngineError: The engine refused the file.
    """
    reason = ""
    if schedule == "experts" or (schedule == "auto" and expert_layout_of(path) is not None):
        try:
            return ExpertStreamedSession(path, scenario, budget_bytes, policy=policy, batch_tokens=batch_tokens), reason
        except RefusedError as refusal:
            if schedule == "experts":
                raise
            reason = str(refusal)
    try:
        return StreamedSession(path, scenario, budget_bytes, batch_tokens=batch_tokens), reason
    except RefusedError as refusal:
        raise RefusedError(f"{reason}; block by block: {refusal}" if reason else str(refusal)) from refusal
