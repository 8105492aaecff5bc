"""What a measured run is asked to do, and what its protocol needs from outside."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from harness.domain.base import Frozen
from harness.domain.record import Validity
from harness.domain.scenario import Scenario
from harness.errors import EngineError

if TYPE_CHECKING:
    from harness.measure.validity import ValidityProbe

Emit = Callable[[str, Any], None]


class RefusedModelError(EngineError):
    """The engine would not load the model."""

    outcome = "refused"


class NotNumbersError(EngineError):
    """The model computes NaN or infinity: a corrupt file, or an overflow."""

    outcome = "failed"


class GenerateJob(Frozen, frozen=True, kw_only=True):
    """What the child is to measure.

    Attributes:
        repetitions: Clean samples wanted of each test.
        retries: Further samples that may be taken when some are disturbed; None for twice as many as are wanted.
        cold_loads: Loads past the page cache, each with its time to first token; 0 to leave the cache alone.
        warm_loads: Loads from the page cache; the last one stays.
        greedy: Choose each token from the logits inside the clock; labels then end in ``greedy``.
        parent_pid: The process that watches; its CPU time is no disturbance.
        patience_s: Longest time spent on disturbed samples and the pauses after them.
    """

    path: str
    scenario: Scenario
    runtime: str = "llamacpp"
    repetitions: int = 5
    retries: int | None = None
    cold_loads: int = 1
    warm_loads: int = 1
    seed: int = 1
    greedy: bool = False
    parent_pid: int = 0
    patience_s: float = 20.0

    @property
    def attempts_max(self) -> int:
        """Samples of each test at most."""
        return self.repetitions + (2 * self.repetitions if self.retries is None else self.retries)


class Undisturbed:
    """Probe of a runtime whose clock is not this machine's."""

    def start(self) -> None:
        """Nothing to read."""

    def finish(self) -> Validity:
        """Nothing to doubt."""
        return Validity()


Probe: TypeAlias = "ValidityProbe | Undisturbed"
ProbeMaker = Callable[[bool], Probe]
"""Makes a probe; the argument says that reading the disk is expected."""
