"""Loss with the reconstruction in the model's residual stream, beside two ablations, and what it costs in generation.

All variants change the same tokens: massive ones (the first of a window, mostly) keep their own value in all of them,
since no autoencoder was trained on them. That makes the ablations milder, and the recovered share smaller, than
replacing every token would.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Final

import numpy as np

from harness.domain.base import Frozen
from harness.domain.scenario import Scenario
from harness.ports import Session
from harness.workloads._language.activations import LayerTap, OpenSession, ordinary, scenario_of, windows_of
from harness.workloads._language.sampling import token_losses
from harness.workloads.sparse_autoencoder.metrics import recovered
from harness.workloads.sparse_autoencoder.model import Floats

Change = Callable[[Floats], Floats]
"""New values for ordinary tokens [token_count, dim]."""

SKIPPED_TOKENS: Final = 1
"""First targets of a window that are not scored."""
_ROUND_TOKENS: Final = 48
_ROUND_COUNT: Final = 3


class Splice(LayerTap):
    """A tap that changes the ordinary tokens of one named result; ``change`` may be exchanged at any time.

    A token of a norm above ``limit`` is left as it is, and so are all of them where ``change`` is None.
    """

    def __init__(self, name: str, limit: float, change: Change | None = None) -> None:
        super().__init__(name, self._changed)
        self.limit, self.change = limit, change

    def _changed(self, _layer: int, values: Floats) -> Floats | None:
        if self.change is None:
            return None
        chosen = ordinary(values, self.limit)
        if chosen.any():
            values[chosen] = self.change(values[chosen])
        return values


class LossReport(Frozen, frozen=True, kw_only=True):
    """Mean negative log-likelihood, nats a token, of the same targets.

    Attributes:
        tapped: Read through the tap, changed by nothing: must equal ``clean``.
        spliced: With the reconstruction.
        zeroed: With zeros (zero ablation).
        averaged: With the mean of the training activations (mean ablation).
        recovered_zero_ratio: Share of the loss recovered against zero ablation; None where that costs nothing.
        recovered_mean_ratio: The same against mean ablation.
    """

    token_count: int
    clean: float
    tapped: float
    spliced: float
    zeroed: float
    averaged: float
    recovered_zero_ratio: float | None
    recovered_mean_ratio: float | None


def losses(
    open_session: OpenSession,
    path: Path,
    text: str,
    name: str,
    reconstruct: Change,
    mean: Floats,
    limit: float,
    *,
    thread_count: int = 1,
) -> LossReport:
    """Loss of a text under the reconstruction and both ablations."""
    tap = Splice(name, limit)
    variants: dict[str, Change | None] = {
        "tapped": None,
        "spliced": reconstruct,
        "zeroed": np.zeros_like,
        "averaged": lambda x: np.broadcast_to(mean, x.shape),
    }
    found: dict[str, float] = {}
    scenario = scenario_of(thread_count)
    with closing(open_session(path, scenario)) as session:
        windows = windows_of(session.tokenize(text))
        found["clean"] = _mean_loss(session, windows)
    with closing(open_session(path, scenario, tap=tap)) as session:
        for variant, change in variants.items():
            tap.change = change
            found[variant] = _mean_loss(session, windows)
    return LossReport(
        token_count=sum(len(w) - 1 - SKIPPED_TOKENS for w in windows),
        recovered_zero_ratio=recovered(found["clean"], found["spliced"], found["zeroed"]),
        recovered_mean_ratio=recovered(found["clean"], found["spliced"], found["averaged"]),
        **found,
    )


def _mean_loss(session: Session, windows: Sequence[Sequence[int]]) -> float:
    found = [token_losses(session, window)[0][SKIPPED_TOKENS:] for window in windows]
    return float(np.mean(np.concatenate(found)))


class Overhead(Frozen, frozen=True, kw_only=True):
    """Decoding speed without a tap, with one that only reads, and with the autoencoder spliced in.

    Attributes:
        plain_s: Median time of a token.
        reading_s: The same while a tap reads.
        spliced_s: The same with encode and sparse decode of every token.
        one_blas_thread: Whether NumPy was held to one thread; see :func:`overhead`.
    """

    token_count: int
    plain_s: float
    reading_s: float
    spliced_s: float
    one_blas_thread: bool = False


def overhead(
    open_session: OpenSession,
    path: Path,
    name: str,
    reconstruct: Change,
    limit: float,
    *,
    thread_count: int = 1,
) -> Overhead:
    """Time of one generated token, three ways in turns, median over all tokens.

    NumPy runs in one thread meanwhile where the extra ``sae`` is installed. Threads of BLAS spin for a while after each
    product, and those of the engine before each part of a pass: where both have as many as there are cores they take
    turns at waiting (on two cores with two threads of each, a spliced token took 16.3 ms instead of 8.4). One token's
    product is too short to gain from threads.
    """
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        threadpool_limits = None
    scenario = Scenario(context_tokens=256, thread_count=thread_count)
    tap = Splice(name, limit)
    times: dict[str, list[float]] = {"plain": [], "reading": [], "spliced": []}
    with (
        threadpool_limits(1, "blas") if threadpool_limits else nullcontext(),
        closing(open_session(path, scenario)) as plain,
        closing(open_session(path, scenario, tap=tap)) as tapped,
    ):
        prompt = plain.tokenize("The reference manual describes the syntax of the language.")
        for _ in range(_ROUND_COUNT):
            for way, session in (("plain", plain), ("reading", tapped), ("spliced", tapped)):
                tap.change = reconstruct if way == "spliced" else None
                session.clear()
                session.decode(prompt, position=0)
                for step in range(_ROUND_TOKENS):
                    token = session.greedy()
                    begin = time.perf_counter()
                    session.decode([token], position=len(prompt) + step)
                    times[way].append(time.perf_counter() - begin)
    medians = {f"{way}_s": float(np.median(values)) for way, values in times.items()}
    return Overhead(token_count=_ROUND_TOKENS * _ROUND_COUNT, one_blas_thread=threadpool_limits is not None, **medians)
