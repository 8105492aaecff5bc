"""A :class:`harness.ports.Tap` as the evaluation callback of llama.cpp: values out of the graph, and back into it."""

import ctypes
from typing import Final

import numpy as np

from harness.errors import EngineError
from harness.ports import EndPass, Tap
from harness.runtimes.llamacpp.devices import ggml_function

_NAME_OFFSET: Final = 256  # of ``name`` in ``struct ggml_tensor`` on 64-bit systems
_NE_OFFSET: Final = 16
_TYPE_F32: Final = 0


class TapHook:
    """Calls a tap from llama.cpp's evaluation callback.

    An exception must not cross the engine's C frames: it is kept, the pass stops there, and :meth:`raise_failure`
    raises it once the engine has returned.
    """

    def __init__(self, tap: Tap) -> None:
        self._tap = tap
        address, size = ctypes.c_void_p, ctypes.c_size_t
        self._is_contiguous = ggml_function("ggml_is_contiguous", ctypes.c_bool, address)
        self._get, self._set = (
            ggml_function(f"ggml_backend_tensor_{verb}", None, address, address, size, size) for verb in ("get", "set")
        )
        self._names: dict[bytes, str | None] = {}  # None for what is not wanted
        self._failure: BaseException | None = None

    def __call__(self, node: int, ask: bool) -> bool:
        """The engine's question and its answer; see :data:`harness.runtimes.llamacpp.session.EvalHook`."""
        try:
            name = None if self._failure else self._wanted(ctypes.string_at(node + _NAME_OFFSET))
            if ask:
                return name is not None
            if name is not None:
                self._hand_over(node, name)
        except EndPass:
            return False
        except BaseException as error:  # noqa: BLE001  raised again outside of the engine
            self._failure = error
        return self._failure is None

    def _wanted(self, raw: bytes) -> str | None:
        if raw not in self._names:
            name = raw.decode("utf-8", "replace")
            self._names[raw] = name if self._tap.wants(name) else None
        return self._names[raw]

    def _hand_over(self, node: int, name: str) -> None:
        if ctypes.c_int.from_address(node).value != _TYPE_F32 or not self._is_contiguous(node):
            raise EngineError(f"{name} is no plain float32 tensor in this build of llama.cpp")
        sizes = [int(n) for n in (ctypes.c_int64 * 4).from_address(node + _NE_OFFSET)]
        while len(sizes) > 2 and sizes[-1] == 1:
            sizes.pop()
        values = np.empty(sizes[::-1], np.float32)
        self._get(node, values.ctypes.data, 0, values.nbytes)
        replaced = self._tap(name, values)
        if replaced is None:
            return
        if replaced.shape != values.shape:
            raise EngineError(f"{name}: the tap gave values of shape {replaced.shape}, expected {values.shape}")
        replaced = np.ascontiguousarray(replaced, np.float32)
        self._set(node, replaced.ctypes.data, 0, replaced.nbytes)

    def raise_failure(self) -> None:
        """Raise what went wrong during the last pass, once."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
