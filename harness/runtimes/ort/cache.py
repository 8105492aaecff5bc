"""The KV cache of an ONNX decoder: engine values that go from one run to the next without a copy.

Two forms, by what the graph's attention does. It concatenates: each run makes new values, the last run's outputs are
the next one's inputs, and a fork shares them, since nothing ever writes into one. Or it writes in place: one buffer of
the full context is past and present at once, and only the length moves.
"""

from collections.abc import Sequence
from copy import copy
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from harness.onnx.decoder import DecoderPorts
from harness.onnx.session import runtime

DTYPES: Final[dict[str, Any]] = {"F32": np.float32, "F16": np.float16}


def value_of(array: NDArray[Any]) -> Any:
    """An engine value over the array's own memory; the array must live as long as the value."""
    return runtime().OrtValue.ortvalue_from_numpy(array)


class Cache:
    """The cache of one sequence: ``length`` tokens of at most as many as its arrays hold."""

    def __init__(self, ports: DecoderPorts, room_tokens: int) -> None:
        self._ports = ports
        self.length = 0
        sizes = zip(ports.head_count, ports.head_dims, strict=True)
        # Zeros that nobody touches take no memory: pages come as the cache fills.
        self._hold([np.zeros((1, heads, room_tokens, dim), DTYPES[ports.dtype]) for heads, dim in sizes])

    def _hold(self, arrays: list[NDArray[Any]]) -> None:
        self._arrays = arrays  # the values below are over their memory
        self._values = [value_of(a) for a in arrays]


class Grown(Cache):
    """The cache of one sequence where the graph concatenates."""

    def __init__(self, ports: DecoderPorts) -> None:
        super().__init__(ports, 0)

    def bind(self, binding: Any) -> None:
        """Name the inputs and outputs of the next run."""
        for name, value in zip(self._ports.past, self._values, strict=True):
            binding.bind_ortvalue_input(name, value)
        for name in self._ports.present:
            binding.bind_output(name, "cpu")

    def take(self, outputs: Sequence[Any], length: int) -> None:
        """What the run gave, in the order it was bound in, is the cache now."""
        self._values = list(outputs[: len(self._ports.present)])
        self._arrays = []
        self.length = length

    def truncate(self, length: int) -> None:
        """Keep the first ``length`` tokens: a copy of that part, since the shape is the length."""
        if length < self.length:
            self._hold([v.numpy()[:, :, :length].copy() for v in self._values])
            self.length = length

    def fork(self) -> "Grown":
        """Another sequence with the same past; no byte is copied."""
        return copy(self)


class InPlace(Cache):
    """The cache of one sequence where the graph writes into the buffer it is given."""

    def bind(self, binding: Any) -> None:
        """Name the inputs and outputs of the next run."""
        for past, present, value in zip(self._ports.past, self._ports.present, self._values, strict=True):
            binding.bind_ortvalue_input(past, value)
            binding.bind_ortvalue_output(present, value)

    def take(self, _outputs: Sequence[Any], length: int) -> None:
        """The run wrote where it belongs."""
        self.length = length

    def truncate(self, length: int) -> None:
        """Keep the first ``length`` tokens: what lies behind is never looked at."""
        self.length = min(self.length, length)

    def fork(self) -> "InPlace":
        """Another sequence with the same past, copied."""
        twin = InPlace(self._ports, self._arrays[0].shape[2])
        for mine, theirs in zip(self._arrays, twin._arrays, strict=True):
            theirs[:, :, : self.length] = mine[:, :, : self.length]
        twin.length = self.length
        return twin
