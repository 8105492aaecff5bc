"""Run models of Apple's MLX by mlx-lm, one sequence at a time.

A model is a folder with config.json, model*.safetensors and tokenizer.json.
"""

from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from harness.core.arrays import Singles
from harness.core.errors import EngineError, RefusedError, optional
from harness.core.plugins import Packaged
from harness.core.record import EngineIdentity
from harness.core.scenario import Scenario
from harness.runtimes.one_sequence import OneSequence, Tokenized


@cache
def _packages() -> tuple[Any, Any, Any]:
    """mlx.core, mlx_lm's loader and its caches."""
    with optional("mlx-lm", "mlx"):
        import mlx.core as mx
        from mlx_lm import utils
        from mlx_lm.models import cache as caches
    return mx, utils, caches


class MlxSession(Tokenized, OneSequence):
    """One loaded model with one sequence; implements :class:`harness.core.ports.Session` but for ``fork``.

    Of the scenario it takes context and tokens of a prefill step; MLX chooses its threads and types of cache
    itself.

    Raises:
        MissingPackageError: mlx-lm is not installed.
        EngineError: The engine refused the model.
    """

    engine = "mlx"

    def __init__(self, path: Path, scenario: Scenario) -> None:
        self._mx, utils, self._caches = _packages()
        folder = self._folder = path if path.is_dir() else path.parent
        try:
            self._model, _ = utils.load_model(folder)
        except Exception as error:
            raise EngineError(f"mlx-lm would not load {folder.name}: {error}") from error
        # MLX computes nothing for it: sizes are known before values.
        self.vocab_count = int(self._model(self._mx.array([[0]])).shape[-1])
        self.context_tokens = scenario.context_tokens
        self._step_tokens = scenario.ubatch_tokens
        self._cache = self._caches.make_prompt_cache(self._model)
        self._keep_nothing()

    def _forward(self, tokens: Sequence[int], logits: str) -> Singles:
        mx = self._mx
        rows = []
        for start in range(0, len(tokens), self._step_tokens):
            part = tokens[start : start + self._step_tokens]
            found = self._model(mx.array([list(part)]), cache=self._cache)[0]
            self._length += len(part)
            # MLX computes what is asked for and nothing before: the cache alone where no logits are kept.
            if logits == "last" and start + len(part) == len(tokens):
                found = found[-1:]
            elif logits != "all":
                mx.eval([c.state for c in self._cache])
                continue
            rows.append(found.astype(mx.float32))
            mx.eval(rows[-1])
        return np.concatenate([self._kept[:0], *(np.array(row, copy=False) for row in rows)])

    def _cut(self, position: int) -> None:
        if position == 0:
            self._cache = self._caches.make_prompt_cache(self._model)
        elif not self._caches.can_trim_prompt_cache(self._cache):
            raise EngineError("the cache of this model can only grow")
        else:
            self._caches.trim_prompt_cache(self._cache, self._length - position)

    def close(self) -> None:
        """Free the model and the cache; safe to call twice."""
        self._model = self._cache = None


class Mlx(Packaged):
    """The MLX runtime."""

    name = "mlx"
    formats = ("mlx",)
    needs = (("mlx_lm", "mlx-lm", "mlx"),)

    def identity(self, scenario: Scenario) -> EngineIdentity:
        """Versions, the device that MLX takes, and the options a run uses."""
        mx, _, _ = _packages()
        return EngineIdentity(
            name="mlx-lm",
            version=f"{version('mlx-lm')} (mlx {mx.__version__})",
            build=str(mx.default_device()),
            thread_count=0,
            options={"context_tokens": scenario.context_tokens, "ubatch_tokens": scenario.ubatch_tokens},
        )

    def open(self, path: Path, scenario: Scenario) -> MlxSession:
        """Load a model; errors as :class:`MlxSession`, and RefusedError for another type of cache."""
        if scenario.kv_type != "F16":
            raise RefusedError(f"mlx has no cache of type {scenario.kv_type}")
        return MlxSession(path, scenario)


RUNTIME = Mlx()
