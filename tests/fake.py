"""A runtime that computes nothing: it answers by a fixed rule, on its own clock, and fails on demand.

It makes every command testable in milliseconds and every fault reproducible. No claim about a real engine rests on it.
A "model" for it is any file; one that holds a JSON object sets costs and faults (see :class:`FakeModel`).

The product finds it as it finds any plug-in: by the entry point in ``tests/plugins``, once :func:`register` was called.
"""

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from harness.core.base import Frozen
from harness.core.errors import BadDataError, EngineError
from harness.core.record import EngineIdentity
from harness.core.scenario import Scenario

VOCAB_COUNT: Final = 256
_LARGEST_MODEL_BYTES: Final = 64 * 1024
_BENCH: Final = Path(__file__).parent

Fault = Literal["", "refuse", "fail", "abort", "segfault", "killed", "hang", "hog", "nan", "exit"]


class FakeModel(Frozen):
    """Costs and faults of one fake model; powers of two keep the sums exact.

    Attributes:
        load_s: Time to load.
        prefill_s_per_token: Time of each token of a batch.
        decode_s_per_token: Time of a single token.
        fault: What goes wrong, for real, in the process that runs it.
        fault_after_tokens: Tokens computed before it does.
        slow_every_count: Every so manyth single token takes twice as long; 0 for none.
        sleeps: Let the same time pass on the real clock too, so that a run has a known duration.
    """

    load_s: float = 0.5
    prefill_s_per_token: float = 2**-10
    decode_s_per_token: float = 2**-6
    fault: Fault = ""
    fault_after_tokens: int = 0
    slow_every_count: int = 0
    sleeps: bool = False


class FakeClock:
    """Time that passes only when told to; with ``sleeps`` the process waits as long."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self.sleeps = False

    def now_s(self) -> float:
        """Seconds since it was made."""
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now_s += seconds
        if self.sleeps:
            time.sleep(seconds)


class FakeSession:
    """A model whose next token is ``(31 * last + 7 * position + 11) mod 256``; tokens are bytes."""

    def __init__(self, model: FakeModel, scenario: Scenario, clock: FakeClock) -> None:
        self.vocab_count = VOCAB_COUNT
        self.context_tokens = scenario.context_tokens
        self._model = model
        self._clock = clock
        self._sequences: dict[int, list[int]] = {}
        self._kept: list[tuple[int, int]] = []
        self._computed_count = 0

    def now_s(self) -> float:
        """Seconds on the clock of its runtime."""
        return self._clock.now_s()

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Bytes of ``text``."""
        del add_special, parse_special
        return list(text.encode())

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Text of those bytes."""
        return bytes(tokens).decode("utf-8", "replace")

    def decode(self, tokens: Sequence[int], *, position: int, sequence: int = 0, logits: str = "last") -> None:
        """Let the time pass that ``tokens`` cost, then keep the rule's answers.

        Raises:
            EngineError: ``position`` is not where the sequence ends, the context is full, or the fault says so.
        """
        for offset, token in enumerate(tokens):
            self._compute(token, position + offset, sequence, single=len(tokens) == 1)
        answers = [(t, position + i) for i, t in enumerate(tokens)]
        self._kept = {"none": [], "last": answers[-1:], "all": answers}[logits]

    def decode_rows(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        sequences: Sequence[int],
        keep: Sequence[bool] | None = None,
    ) -> None:
        """The same for tokens that stand anywhere; errors as ``decode``."""
        rows = list(zip(tokens, positions, sequences, strict=True))
        for token, position, sequence in rows:
            self._compute(token, position, sequence, single=len(rows) == 1)
        wanted = [True] * len(rows) if keep is None else keep
        self._kept = [(t, p) for (t, p, _), k in zip(rows, wanted, strict=True) if k]

    def _compute(self, token: int, position: int, sequence: int, *, single: bool) -> None:
        history = self._sequences.setdefault(sequence, [])
        if position != len(history):
            raise EngineError(f"sequence {sequence} has {len(history)} tokens, got a batch at {position}")
        if sum(len(h) for h in self._sequences.values()) >= self.context_tokens:
            raise EngineError("no room left in the KV cache")
        history.append(int(token))
        cost_s = self._model.decode_s_per_token if single else self._model.prefill_s_per_token
        every = self._model.slow_every_count
        slow = single and every and self._computed_count % every == every - 1
        self._clock.advance(2 * cost_s if slow else cost_s)
        if self._computed_count >= self._model.fault_after_tokens:
            _strike(self._model.fault)
        self._computed_count += 1

    def logits(self, index: int = -1) -> NDArray[np.float32]:
        """1 for the rule's next token, 0 for all others."""
        token, position = self._kept[index]
        row = np.zeros(VOCAB_COUNT, np.float32)
        row[(31 * token + 7 * position + 11) % VOCAB_COUNT] = 1.0
        if self._model.fault == "nan" and self._computed_count > self._model.fault_after_tokens:
            row[0] = np.nan
        return row

    def greedy(self, index: int = -1) -> int:
        """The rule's next token."""
        return int(self.logits(index).argmax())

    def is_end(self, token: int) -> bool:
        """A zero byte ends a generation."""
        return token == 0

    def truncate(self, position: int, *, sequence: int = 0) -> None:
        """Forget all of ``sequence`` from ``position`` on."""
        del self._sequences.setdefault(sequence, [])[position:]

    def fork(self, source: int, target: int) -> None:
        """Give ``target`` all that ``source`` has."""
        self._sequences[target] = list(self._sequences.get(source, []))

    def clear(self) -> None:
        """Forget every sequence."""
        self._sequences.clear()

    def close(self) -> None:
        """Forget everything."""
        self._sequences.clear()
        self._kept = []


class FakeRuntime:
    """The runtime; its clock is shared by all its sessions."""

    name = "fake"

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.now_s = self.clock.now_s

    def missing(self) -> str | None:
        """Never missing."""
        return None

    def identity(self, scenario: Scenario) -> EngineIdentity:
        """Always the same."""
        return EngineIdentity(name="fake", version="1", build="none", thread_count=scenario.thread_count or 1)

    def open(self, path: Path, scenario: Scenario) -> FakeSession:
        """Read costs and faults from ``path`` when it holds a JSON object; other files get the defaults.

        Raises:
            EngineError: The file cannot be read, or the fault is ``refuse``.
            BadDataError: The JSON object is none of a fake model.
        """
        model = read_model(path)
        self.clock.sleeps = model.sleeps
        self.clock.advance(model.load_s)
        if model.fault == "refuse":
            raise EngineError(f"the fake engine would not load {path}")
        return FakeSession(model, scenario, self.clock)


def read_model(path: Path) -> FakeModel:
    """Costs and faults in ``path``; defaults for a file that is no JSON object.

    Raises:
        EngineError: The file cannot be read.
        BadDataError: The JSON object is none of a fake model.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_LARGEST_MODEL_BYTES)
    except OSError as error:
        raise EngineError(f"the fake engine could not read {path}: {error.strerror}") from error
    if not head.lstrip().startswith(b"{"):
        return FakeModel()
    try:
        return msgspec.json.decode(head, type=FakeModel)
    except msgspec.MsgspecError as error:
        raise BadDataError(path, "", str(error), "a JSON object of a fake model") from error


def _strike(fault: Fault) -> None:
    """Make the fault happen to this very process."""
    match fault:
        case "fail":
            raise EngineError("the fake engine failed as it was told to")
        case "abort":
            os.write(2, b"fake.cpp:1: GGML_ASSERT(told_to == false) failed\n")
            os.abort()
        case "segfault":
            signal.signal(signal.SIGSEGV, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGSEGV)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(7)
        case "hang":
            while True:
                time.sleep(3600)
        case "hog":
            hoard = []
            while True:
                hoard.append(b"x" * (16 << 20))  # written, so that it is held and not only promised
                time.sleep(0.002)


def register() -> None:
    """Let this process, and those that it starts from now on, find the runtime by its name."""
    folders = [str(_BENCH.parent), str(_BENCH / "plugins")]
    sys.path += [folder for folder in folders if folder not in sys.path]
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([p for p in given if p] + folders))


RUNTIME = FakeRuntime()
