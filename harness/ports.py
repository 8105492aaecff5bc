"""Protocols between the layers: what a runtime, a session and a workload promise."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from harness.domain.record import EngineIdentity
from harness.domain.scenario import Scenario
from harness.domain.workload import Cost


@runtime_checkable
class Session(Protocol):
    """One loaded model with one KV cache, in the process that calls it."""

    vocab_count: int
    context_tokens: int

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of ``text``; ``parse_special`` lets its words name special tokens (``<|im_end|>``)."""

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Text of token ids; undecodable bytes become U+FFFD."""

    def decode(self, tokens: Sequence[int], *, position: int, sequence: int = 0, logits: str = "last") -> None:
        """Run ``tokens`` through the model at ``position`` of ``sequence``.

        ``logits`` says for which tokens logits are kept: ``none``, ``last`` or ``all``. Returns when they are computed.

        Raises:
            EngineError: The engine refused the batch.
        """

    def decode_rows(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        sequences: Sequence[int],
        keep: Sequence[bool] | None = None,
    ) -> None:
        """Run one batch of tokens, each at its own position of its own sequence.

        ``keep`` says whose logits are kept, all when None; ``logits(i)`` then counts the kept ones in this order.

        Raises:
            EngineError: The engine refused the batch.
        """

    def logits(self, index: int = -1) -> NDArray[np.float32]:
        """Logits [vocab_count] of the ``index``-th token of the last ``decode`` that kept them; a view, not a copy."""

    def greedy(self, index: int = -1) -> int:
        """Most likely next token after the ``index``-th kept one."""

    def is_end(self, token: int) -> bool:
        """Whether ``token`` ends a generation."""

    def truncate(self, position: int, *, sequence: int = 0) -> None:
        """Forget all of ``sequence`` from ``position`` on."""

    def fork(self, source: int, target: int) -> None:
        """Make ``target`` share all that ``source`` has in the cache."""

    def clear(self) -> None:
        """Forget every sequence."""

    def close(self) -> None:
        """Free the model and the cache."""


class EndPass(Exception):  # noqa: N818  no error: a tap has what it wanted
    """Raised by a tap to end the pass there: what comes later is not computed, where the engine can stop.

    The pass then has no logits, and the cache of later layers is not written: clear the session before the next pass.
    """


class Tap(Protocol):
    """Reads, and may replace, named intermediate results of a model while it runs.

    A session opened with ``tap=`` asks for each named result of each pass. Names are the engine's own and change with
    its version; in llama.cpp ``l_out-15`` is the residual stream after block 15.
    """

    def wants(self, name: str) -> bool:
        """Whether this result is wanted; asked once for each name, so the answer must not change."""

    def __call__(self, name: str, values: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """Take one result; values of the same shape to go on with, or None to leave the pass as it is.

        ``values`` are [token_count, dim] of one physical batch, or [..., token_count, dim] where the result has more
        axes (``kq_soft_max`` is [head_count, token_count, cache_tokens]); a copy that may be kept.

        Raises:
            EndPass: Nothing later is wanted.
        """


class Runtime(Protocol):
    """One runtime. Its module ends in ``RUNTIME = ...`` and imports the engine inside functions only.

    A runtime may also have ``formats`` (of ``gguf onnx``: what it reads, so that others are refused at once),
    ``model_options(path) -> Mapping[str, Any]``: what the model's file says of how it runs, for the record,
    ``entry``: the child's ``package.module:function`` that measures it, where it opens no session, and
    ``attach(url)``: a server that is there already, in place of ``open``.
    """

    name: str

    def missing(self) -> str | None:
        """Why it cannot be used here (package not installed, no such device); None when it can."""

    def identity(self, scenario: Scenario) -> EngineIdentity:
        """Name, version and build of the engine."""

    def open(self, path: Path, scenario: Scenario, **options: Any) -> Session:
        """Load a model.

        Raises:
            MissingPackageError: The engine is not installed.
            EngineError: The engine refused the file.
        """


class Operation(NamedTuple):
    """Something a workload lets the harness time: ``call`` does ``call_count`` operations, and nothing else."""

    name: str
    call: Callable[[], object]
    call_count: int = 1


class WorkloadContext(NamedTuple):
    """What the harness hands to a workload; a model and what opens it to those that say ``needs_model``.

    Attributes:
        folder: Scratch folder of this run, removed afterwards.
        cache: Folder for things worth keeping between runs (exported encoders and the like).
        open_session: Takes path, scenario, and the runtime's own options such as ``sequence_count``.
        data: Folder of opt-in public data sets; None when there is none.
        cases: Cases of each part of an evaluation, 0 for all; None leaves it to the workload.
        say: Takes a line that tells how far an evaluation is.
        tell: Takes what an evaluation has found so far, so that it is kept whatever comes later.
        until_s: When the time of an evaluation is up, on the clock of ``perf_counter``.
    """

    folder: Path
    cache: Path
    seed: int
    thread_count: int
    model_path: Path | None = None
    open_session: Callable[..., Session] | None = None
    data: Path | None = None
    cases: int | None = None
    say: Callable[[str], None] = lambda _: None
    tell: Callable[[Mapping[str, Any]], None] = lambda _: None
    until_s: float = float("inf")

    def share(self, left_count: int) -> "WorkloadContext":
        """The context of the next one of so many parts of an evaluation, which share the time that is left."""
        now = perf_counter()
        return self._replace(until_s=now + (self.until_s - now) / left_count)

    def data_files(self, pattern: str) -> list[Path]:
        """Data sets whose file names match, by name; none where there is no data folder."""
        return sorted(self.data.glob(pattern)) if self.data else []


class Workload(Protocol):
    """A system of its own that is measured like a language model. Its module ends in ``WORKLOAD = ...``.

    Attributes:
        name: The module's name.
        title: One line for people.
        extra: Extra of edge-harness that it needs; empty for none.
        needs_model: Whether it runs a language model.
        sizes: Named parameter sets, ``default`` among them.

    A workload may also have ``evaluate(context) -> Mapping[str, Any]``: quality on opt-in public data, JSON values,
    with ``evaluates_model`` where that alone asks a model, and ``samples_cases`` where the context's ``cases`` says
    how many cases of it; ``prepared_bytes(size) -> int``: memory that ``prepare`` holds for all operations together,
    where that is more than the largest operation's ``resident_bytes``; and ``context_tokens(size) -> int``: the context
    of its model's session.
    """

    name: str
    title: str
    extra: str
    needs_model: bool
    sizes: Mapping[str, Mapping[str, int]]

    def costs(self, size: Mapping[str, int]) -> Sequence[Cost]:
        """Declared cost of each operation at this size, one for each name in ``operations``."""

    def prepare(self, size: Mapping[str, int], context: WorkloadContext) -> Any:
        """Build everything outside the clock; the result goes to the other two."""

    def operations(self, state: Any) -> Sequence[Operation]:
        """What is timed."""

    def check(self, state: Any) -> Mapping[str, Any]:
        """Check the answers outside the clock and return quality figures; WrongAnswerError where one is wrong."""
