"""An engine in three methods: load a model, give tokens one after the other, free the model.

The harness does the rest: it makes prompts, warms up, times, repeats disturbed samples, marks memory and names
the tests. ``ttft512`` and ``pp512`` end with the first token; ``tg128`` is the gaps between the tokens after it,
as a client of a server sees them. Perplexity, drafts, depth and several sequences need an engine that shows its
logits: :class:`harness.core.ports.Session`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from harness.core.errors import RefusedError
from harness.core.plugins import Packaged
from harness.core.ports import Session
from harness.core.record import EngineIdentity
from harness.core.scenario import Scenario


class SimpleRuntime(Packaged, ABC):
    """Base of an engine that streams tokens; its module ends in ``RUNTIME = ...`` and imports the engine in methods.

    Attributes:
        name: As ``--runtime`` takes it.
        version: Of the engine, for records.
        formats: Of ``gguf onnx mlx openvino``, what it reads: others are refused before the run; empty for any file.
        vocab_count: Prompts are random token ids below this number; 0: the engine takes text only, and its
            prompts are words, whose tokens nobody has counted: then there is no ``pp``.
        honours: Fields of :class:`~harness.core.scenario.Scenario` that ``load`` follows beyond the context and
            the threads, such as ``kv_type``; a run that asks for another one is refused.
        needs: Modules that must be installed, each with the package and the extra that bring it.
    """

    name: str
    version: str = "unknown"
    formats: tuple[str, ...] = ()
    vocab_count: int = 0
    honours: tuple[str, ...] = ()
    needs: ClassVar[tuple[tuple[str, str, str], ...]] = ()
    entry: ClassVar[str] = "harness.measure.jobs.token_times:run_simple"

    @abstractmethod
    def load(self, path: Path, scenario: Scenario) -> Any:
        """Load the model at ``path`` for ``context_tokens`` and ``thread_count``; the other methods get what it returns.

        Raises:
            EngineError: The engine refused the file.
        """

    @abstractmethod
    def generate(self, model: Any, prompt: Sequence[int] | str, count: int) -> Iterable[Any]:
        """Yield ``count`` items, one a token, each as soon as the engine has computed it.

        Begin with an empty cache, and go on after a token that ends a text. ``prompt`` are token ids, or a text
        where ``vocab_count`` is 0.
        """

    @abstractmethod
    def close(self, model: Any) -> None:
        """Free the model."""

    def identity(self, scenario: Scenario) -> EngineIdentity:
        """Name and version, and what a run of ``scenario`` sets."""
        return EngineIdentity(
            name=self.name,
            version=self.version,
            build="",
            thread_count=scenario.thread_count,
            options={"context_tokens": scenario.context_tokens},
        )

    def open(self, path: Path, scenario: Scenario) -> Session:
        """Always refused: tokens come without logits."""
        del path, scenario
        raise RefusedError(f"the runtime {self.name} gives tokens and no logits: it can only be run")
