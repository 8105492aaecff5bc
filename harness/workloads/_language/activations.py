"""Real activations of a real model through a tap, outliers told apart."""

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.domain.scenario import Scenario
from harness.errors import EngineError, RefusedError
from harness.ports import EndPass, Session

Floats = NDArray[np.float32]

BLOCK: Final = "l_out-"  # and the block's number
WINDOW_TOKENS: Final = 512
MASSIVE_RATIO: Final = 8.0
"""A token whose norm is more than this multiple of the median one is massive: an attention sink, not content."""

_TOKEN_CHARS_MAX: Final = 8
"""Characters of a token, on average over a text, that no vocabulary exceeds."""

OpenSession = Callable[..., Session]
"""Opens a model: path, scenario, options of the runtime; see :class:`harness.ports.WorkloadContext`."""


class LayerTap:
    """A tap on one result of every layer, or of one: ``name`` is llama.cpp's up to the layer's number, or with it.

    ``take`` gets the layer and the values; what it returns, if anything, takes their place.
    """

    def __init__(self, name: str, take: Callable[[int, Floats], Floats | None]) -> None:
        self.name, self.take = name, take

    def wants(self, name: str) -> bool:
        """That result, and no view of it."""
        before, dash, number = name.rpartition("-")
        return self.name in {name, before + dash} and number.isdigit()

    def __call__(self, name: str, values: Floats) -> Floats | None:
        """Hand the values on."""
        return self.take(int(name.rpartition("-")[2]), values)


class Captured(NamedTuple):
    """Activations of a text.

    Attributes:
        values: [token_count, dim], in the order of the tokens, massive ones included.
        tokens: Token ids, one for each row.
        windows: Where each window starts; a window is what the model read together.
    """

    values: Floats
    tokens: NDArray[np.int64]
    windows: NDArray[np.int64]


def scenario_of(thread_count: int, window_tokens: int = WINDOW_TOKENS, *, flash_attention: bool = True) -> Scenario:
    """One window, read in one physical batch."""
    return Scenario(
        context_tokens=window_tokens,
        ubatch_tokens=window_tokens,
        thread_count=thread_count,
        flash_attention=flash_attention,
    )


def windows_of(tokens: Sequence[int], window_tokens: int = WINDOW_TOKENS) -> list[Sequence[int]]:
    """Consecutive windows; a rest shorter than a quarter of one is left out."""
    found = [tokens[i : i + window_tokens] for i in range(0, len(tokens), window_tokens)]
    return [w for w in found if len(w) >= max(2, window_tokens // 4)]


def capture(
    open_session: OpenSession,
    path: Path,
    texts: Sequence[str],
    name: str,
    *,
    thread_count: int = 1,
    limit_tokens: int = 0,
    logits: str = "none",
) -> Captured:
    """Read texts window by window and keep one named result of every token, such as ``l_out-15``.

    Each text is cut into windows of its own; all ends after ``limit_tokens``, unless those are 0. ``logits`` is ``all``
    for the last block: llama.cpp computes it for tokens alone whose logits are kept.

    Raises:
        EngineError: The model computes nothing of that name for every token.
        RefusedError: The texts are too short for one window.
    """
    parts: list[Floats] = []
    kept: list[int] = []
    starts: list[int] = []

    def keep(_layer: int, values: Floats) -> None:
        parts.append(values)
        raise EndPass  # nothing later is wanted: windows are of one batch

    tap = LayerTap(name, keep)
    with closing(open_session(path, scenario_of(thread_count), tap=tap)) as session:
        for text in texts:
            # No more is tokenized than can be wanted: without words of its own to split at, a tokenizer takes minutes
            # for a megabyte.
            part = text[: (limit_tokens - len(kept)) * _TOKEN_CHARS_MAX] if limit_tokens else text
            for window in windows_of(session.tokenize(part)):
                if limit_tokens and len(kept) + len(window) > limit_tokens:
                    break
                session.clear()
                session.decode(window, position=0, logits=logits)
                starts.append(len(kept))
                kept += window
    if not kept:
        raise RefusedError(f"the text is shorter than {WINDOW_TOKENS // 4} tokens")
    values = np.concatenate(parts) if parts else np.empty((0, 0), np.float32)
    if len(values) != len(kept):
        raise EngineError(f"{path.name} has no result {name!r} for each token: {len(values)} rows, {len(kept)} tokens")
    return Captured(values, np.array(kept, np.int64), np.array(starts, np.int64))


def norm_limit(values: Floats) -> float:
    """Norm above which a token counts as massive: :data:`MASSIVE_RATIO` times the median norm."""
    return MASSIVE_RATIO * float(np.median(np.linalg.norm(values, axis=1)))


def ordinary(values: Floats, limit: float) -> NDArray[np.bool_]:
    """Which tokens are not massive."""
    kept: NDArray[np.bool_] = np.linalg.norm(values, axis=1) <= limit
    return kept


def block_name(layer: int) -> str:
    """llama.cpp's name of the residual stream after a block."""
    return f"{BLOCK}{layer}"


def joined(first: Captured, second: Captured) -> Captured:
    """One after the other."""
    return Captured(
        np.concatenate([first.values, second.values]),
        np.concatenate([first.tokens, second.tokens]),
        np.concatenate([first.windows, second.windows + len(first.tokens)]),
    )
