"""Models of the onnxruntime-genai builder by its own runtime: one sequence, a cache that can be cut but not shared."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from harness.domain.record import EngineIdentity
from harness.domain.scenario import Scenario
from harness.errors import EngineError, optional
from harness.plugins import Packaged
from harness.runtimes._rows import OneSequence, read_config
from harness.runtimes._threads import default_thread_count

CONFIG_FILE: Final = "genai_config.json"


def _package() -> Any:
    with optional("onnxruntime-genai", "genai"):
        import onnxruntime_genai
    return onnxruntime_genai


class GenaiSession(OneSequence):
    """One loaded model with one sequence; implements :class:`harness.ports.Session` but for ``fork``.

    The path is ``model.onnx`` in a folder that the builder made (``genai_config.json`` beside it). Of the scenario it
    takes context and threads; the prompt goes in whole, as the runtime has it.

    Raises:
        MissingPackageError: onnxruntime-genai is not installed.
        BadDataError: The folder has no configuration of the builder.
        EngineError: The engine refused the model.
    """

    engine = "onnxruntime-genai"

    def __init__(self, path: Path, scenario: Scenario) -> None:
        og = _package()
        _config_of(path)
        self.thread_count = scenario.thread_count or default_thread_count()
        try:
            config = og.Config(str(path.parent))
            options = {"intra_op_num_threads": self.thread_count}
            config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
            self._model = og.Model(config)
            self._tokenizer = og.Tokenizer(self._model)
            self._params = og.GeneratorParams(self._model)
            self._params.set_search_options(max_length=scenario.context_tokens, do_sample=False)
            self._generator: Any = og.Generator(self._model, self._params)
        except Exception as error:
            raise EngineError(f"onnxruntime-genai would not load {path.parent.name}: {error}") from error
        self.vocab_count = int(_config_of(path)["model"]["vocab_size"])
        self.context_tokens = scenario.context_tokens
        self.begin_token: int | None = None
        self._end_tokens = frozenset(int(t) for t in self._tokenizer.eos_token_ids)
        self._keep_nothing()

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of ``text``; the runtime adds and reads what its tokenizer does, whatever is asked."""
        del add_special, parse_special
        return [int(t) for t in self._tokenizer.encode(text)]

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Text of token ids; undecodable bytes become U+FFFD."""
        return str(self._tokenizer.decode(np.asarray(tokens, np.int32)))

    def _forward(self, tokens: Sequence[int], logits: str) -> NDArray[np.float32]:
        self._generator.append_tokens(np.asarray(tokens, np.int32))
        if logits == "all":
            rows: NDArray[np.float32] = np.asarray(self._generator.get_output("logits"), np.float32)[0]
            return rows
        if logits == "last":
            return np.asarray(self._generator.get_logits(), np.float32).reshape(-1, self.vocab_count)[-1:]
        return self._kept[:0]

    def length(self) -> int:
        """Tokens in the cache."""
        return int(self._generator.token_count())

    def _cut(self, position: int) -> None:
        self._generator.rewind_to(position)

    def close(self) -> None:
        """Free the model and the cache; safe to call twice."""
        self._generator = self._params = self._tokenizer = self._model = None


class Genai(Packaged):
    """The onnxruntime-genai runtime."""

    name = "genai"
    formats = ("onnx",)
    needs = (("onnxruntime_genai", "onnxruntime-genai", "genai"),)

    def identity(self, scenario: Scenario) -> EngineIdentity:
        """Versions of the runtime and of the engine below it, and the options a run uses."""
        from harness.onnx.session import CPU, runtime

        og, ort = _package(), runtime()
        return EngineIdentity(
            name="onnxruntime-genai",
            version=f"{og.__version__} (onnxruntime {ort.__version__})",
            build=str(ort.get_build_info()).removeprefix("ORT Build Info: "),
            thread_count=scenario.thread_count or default_thread_count(),
            options={"context_tokens": scenario.context_tokens, "providers": list(CPU)},
        )

    def model_options(self, path: Path) -> dict[str, Any]:
        """The graph's quantization, and the folder's search options (BadDataError where one of them is not there)."""
        from harness.onnx.files import quantization
        from harness.onnx.graph import read_graph

        shared = bool(_config_of(path).get("search", {}).get("past_present_share_buffer", False))
        return {"quantization": quantization(read_graph(path)), "kv_in_place": shared}

    def open(self, path: Path, scenario: Scenario, **options: Any) -> GenaiSession:
        """Load a model; errors as :class:`GenaiSession`."""
        return GenaiSession(path, scenario, **options)


def _config_of(path: Path) -> dict[str, Any]:
    expected = "a folder made by the onnxruntime-genai builder (other ONNX decoders: --runtime ort)"
    return read_config(path.parent / CONFIG_FILE, "model", "vocab_size", expected=expected)


RUNTIME = Genai()
