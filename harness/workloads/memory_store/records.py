"""What goes into the store and what comes out of it."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.errors import RefusedError


class NewMemory(NamedTuple):
    """Something to remember; ``created_s`` None means now, ``vector`` None lets the embedder make it."""

    content: str
    namespace: str = "default"
    source: str = "conversation"
    importance: float = 0.5
    created_s: float | None = None
    vector: NDArray[np.float32] | None = None


class Memory(NamedTuple):
    """One memory as it is kept. ``superseded_by`` is None for the current version."""

    memory_id: int
    content: str
    namespace: str
    source: str
    created_s: float
    importance: float
    access_count: int
    supersedes: int | None
    superseded_by: int | None


class Hit(NamedTuple):
    """A retrieved memory and its score, in the unit of the scoring used."""

    memory: Memory
    score: float


class Forgotten(NamedTuple):
    """What was, or in a dry run would be, forgotten.

    Attributes:
        memories: The memories, all their older versions included.
        dry_run: True when nothing was changed.
        is_erased: True when no file of the store holds any of it; False in a dry run, or while another process still
            reads an older state from the log (then ``erase`` finishes the work).
    """

    memories: tuple[Memory, ...]
    dry_run: bool
    is_erased: bool


def check_memory(item: NewMemory) -> None:
    """Refuse what cannot be remembered.

    Raises:
        RefusedError: The text is empty, or importance or time are out of range.
    """
    if not item.content.strip():
        raise RefusedError("an empty text cannot be remembered")
    if not 0.0 <= item.importance <= 1.0:
        raise RefusedError(f"importance must lie in [0, 1], got {item.importance}")
    if item.created_s is not None and not abs(item.created_s) < float("inf"):
        raise RefusedError(f"created_s must be a finite time, got {item.created_s}")


def unit_vector(vector: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """The vector [dim] at length 1.

    Raises:
        RefusedError: Another shape, not finite, or zero.
    """
    array = np.asarray(vector, np.float32)
    if array.shape != (dim,):
        raise RefusedError(f"a vector must have the shape ({dim},), got {array.shape}")
    norm = float(np.linalg.norm(array))
    if not 0.0 < norm < float("inf"):
        raise RefusedError("a vector must be finite and not zero")
    return array / np.float32(norm)
