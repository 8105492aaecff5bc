"""Steps of llama.cpp's own optimiser (AdamW) on all weights of a model, which must be F32."""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from harness.core.errors import EngineError, RefusedError
from harness.core.scenario import Scenario
from harness.runtimes.llamacpp.session import DATA_OFFSET, LlamaSession, pointer_at

_I32: Final = 26
"""GGML_TYPE_I32. Source: ggml.h."""
_CONTEXT_STEP: Final = 256


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
        params = self.lib.optimiser_params()
        params.param_filter = self._address("llama_opt_param_filter_all")
        params.get_opt_pars = self._address("ggml_opt_get_default_optimizer_params")
        self.lib.llama_opt_init(self._context, self._model, params)
        self._set = self.lib.ggml_opt_dataset_init(_I32, _I32, batch_tokens, batch_tokens, 1, 1)
        self._result = self.lib.ggml_opt_result_init()

    def _address(self, name: str) -> int | None:
        return ctypes.cast(self.lib.symbol(name), ctypes.c_void_p).value

    def step(self, tokens: Sequence[int]) -> float:
        """Take one step over a batch and return the loss before the step, in nats a token.

        Each token of the batch but the last one predicts the next.
        """
        if len(tokens) != self.batch_tokens + 1:
            raise EngineError(f"a batch: found {len(tokens)} tokens, expected {self.batch_tokens + 1}")
        inputs = self.lib.ggml_opt_dataset_data(self._set)
        labels = self.lib.ggml_opt_dataset_labels(self._set)
        for tensor, values in ((inputs, tokens[:-1]), (labels, tokens[1:])):
            data = pointer_at(tensor + DATA_OFFSET)
            (ctypes.c_int32 * len(values)).from_address(data)[:] = list(values)
        self.lib.ggml_opt_result_reset(self._result)
        self.lib.llama_opt_epoch(self._context, self._set, self._result, None, 1, None, None)
        loss = ctypes.c_double()
        self.lib.ggml_opt_result_loss(self._result, ctypes.byref(loss), None)
        return loss.value

    def close(self) -> None:
        """Free everything; safe to call twice."""
        if self._context:
            self.lib.ggml_opt_dataset_free(self._set)
            self.lib.ggml_opt_result_free(self._result)
        super().close()
