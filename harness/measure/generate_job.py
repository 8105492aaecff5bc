"""What a measured run is asked to do."""

from collections.abc import Callable
from typing import Any

from harness.domain.base import Frozen
from harness.domain.scenario import Scenario

Emit = Callable[[str, Any], None]


class GenerateJob(Frozen, frozen=True, kw_only=True):
    """What the child is to measure.

    Attributes:
        retries: Further samples that may be taken when some are disturbed; None for twice as many as are wanted.
        cold_loads: Loads past the page cache, each with its time to first token; 0 to leave the cache alone.
        greedy: Choose each token from the logits inside the clock; labels then end in ``greedy``.
        patience_s: Longest time spent on disturbed samples and the pauses after them.
    """

    path: str
    scenario: Scenario
    runtime: str = "llamacpp"
    repetitions: int = 5
    retries: int | None = None
    cold_loads: int = 1
    seed: int = 1
    greedy: bool = False
    patience_s: float = 20.0

    @property
    def attempts_max(self) -> int:
        """Samples of each test at most."""
        return self.repetitions + (2 * self.repetitions if self.retries is None else self.retries)
