"""How long work in this layer says how far it is."""

from collections.abc import Callable

Progress = Callable[[int, int], object]
"""Called with bytes done and bytes in all."""


def no_progress(done_bytes: int, total_bytes: int) -> None:
    """Say nothing."""
    del done_bytes, total_bytes
