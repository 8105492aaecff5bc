"""Steps of llama.cpp's own optimiser (AdamW) on all weights of a model, which must be F32."""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from harness.domain.scenario import Scenario
from harness.errors import EngineError, RefusedError
from harness.runtimes.llamacpp.session import DATA_OFFSET, LlamaSession

_I32: Final = 26
"""GGML_TYPE_I32. Source: ggml.h."""
_CONTEXT_STEP: Final = 256
_POINTER: Final = ctypes.c_void_p
_CALLS: Final[dict[str, tuple[Any, ...]]] = {
    "ggml_opt_dataset_init": (_POINTER, *[ctypes.c_int] * 2, *[ctypes.c_int64] * 4),
    "ggml_opt_dataset_data": (_POINTER, _POINTER),
    "ggml_opt_dataset_labels": (_POINTER, _POINTER),
    "ggml_opt_dataset_free": (None, _POINTER),
    "ggml_opt_result_init": (_POINTER,),
    "ggml_opt_result_reset": (None, _POINTER),
    "ggml_opt_result_free": (None, _POINTER),
    "ggml_opt_result_loss": (None, _POINTER, _POINTER, _POINTER),
    "llama_opt_epoch": (None, *[_POINTER] * 4, ctypes.c_int64, *[_POINTER] * 2),
}
"""Type of the result, then of the arguments. Source: ggml-opt.h, llama.h."""


class _Params(ctypes.Structure):
    """``struct llama_opt_params``."""

    _fields_ = [
        ("n_ctx_train", ctypes.c_uint32),
        ("param_filter", _POINTER),
        ("param_filter_ud", _POINTER),
        ("get_opt_pars", _POINTER),
        ("get_opt_pars_ud", _POINTER),
        ("optimizer_type", ctypes.c_int32),
    ]


class TrainingSession(LlamaSession):
    """A model in memory of its own, with gradients and moments for each weight once a step was taken.

    Raises:
        EngineError: The engine refused the file, or has no optimiser.
        RefusedError: A batch is no multiple of what llama.cpp's contexts are multiples of.
    """

    def __init__(self, path: Path, batch_tokens: int, thread_count: int) -> None:
        if batch_tokens % _CONTEXT_STEP or not batch_tokens:
            raise RefusedError(f"batch_tokens: found {batch_tokens}, expected a multiple of {_CONTEXT_STEP}")
        scenario = Scenario(
            context_tokens=batch_tokens,
            ubatch_tokens=batch_tokens,
            kv_type="F32",
            flash_attention=False,
            repack=False,
            mmap=False,
            thread_count=thread_count,
            api="cpu",
        )
        super().__init__(path, scenario, batch_tokens=batch_tokens)
        params = _Params()
        params.param_filter = ctypes.cast(self.lib.symbol("llama_opt_param_filter_all"), _POINTER).value
        params.get_opt_pars = ctypes.cast(
            self.lib.symbol("ggml_opt_get_default_optimizer_params"), _POINTER
        ).value
        begin = self.lib.symbol("llama_opt_init")
        begin.restype = None
        begin.argtypes = (_POINTER, _POINTER, _Params)
        begin(self._context, self._model, params)
        self._set = self._call("ggml_opt_dataset_init", _I32, _I32, batch_tokens, batch_tokens, 1, 1)
        self._result = self._call("ggml_opt_result_init")

    def step(self, tokens: Sequence[int]) -> float:
        """One step over a batch, of which each token but the last predicts the next.

        The loss before it, in nats.
        """
        if len(tokens) != self.batch_tokens + 1:
            raise EngineError(f"a batch: found {len(tokens)} tokens, expected {self.batch_tokens + 1}")
        for name, values in (("data", tokens[:-1]), ("labels", tokens[1:])):
            tensor = self._call(f"ggml_opt_dataset_{name}", self._set)
            data = _POINTER.from_address(tensor + DATA_OFFSET).value
            (ctypes.c_int32 * len(values)).from_address(data or 0)[:] = list(values)
        self._call("ggml_opt_result_reset", self._result)
        self._call("llama_opt_epoch", self._context, self._set, self._result, None, 1, None, None)
        loss = ctypes.c_double()
        self._call("ggml_opt_result_loss", self._result, ctypes.byref(loss), None)
        return loss.value

    def close(self) -> None:
        """Free everything; safe to call twice."""
        if self._context:
            self._call("ggml_opt_dataset_free", self._set)
            self._call("ggml_opt_result_free", self._result)
        super().close()

    def _call(self, name: str, *arguments: Any) -> Any:
        function = self.lib.symbol(name)
        function.restype, *kinds = _CALLS[name]
        function.argtypes = kinds
        return function(*arguments)
