"""ONNX decoders by ONNX Runtime, the KV cache bound to the engine: no cache goes through Python.

The last run's outputs are the next one's inputs.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from harness.domain.foreign import json_in, say
from harness.domain.record import EngineIdentity
from harness.domain.scenario import Scenario
from harness.errors import BadDataError
from harness.onnx.decoder import KEEP_INPUT, decoder_ports
from harness.onnx.graph import read_graph
from harness.onnx.session import OnnxSession, providers_for, runtime
from harness.plugins import Packaged
from harness.runtimes._rows import TOKENIZER_FILE, OneSequence, Tokenized
from harness.runtimes._threads import default_thread_count

_DTYPES: Final[dict[str, Any]] = {"F32": np.float32, "F16": np.float16}


class OrtSession(Tokenized, OneSequence):
    """One loaded model with one sequence; implements :class:`harness.ports.Session` but for ``fork``.

    ``tokenizer.json`` lies beside the ONNX file. Of the scenario it takes context, physical batch, threads
    and repack.

    Raises:
        MissingPackageError: onnxruntime or tokenizers is not installed.
        RefusedError: The graph is no decoder that can be run here.
        BadDataError: A file is missing or is not what it should be.
        EngineError: The engine refused the graph.
    """

    engine = "ONNX Runtime"

    def __init__(self, path: Path, scenario: Scenario) -> None:
        self.ports = decoder_ports(read_graph(path))
        self._folder = path.parent
        if not (path.parent / TOKENIZER_FILE).is_file():
            raise BadDataError(path.parent / TOKENIZER_FILE, "", "no such file", "the model's tokenizer")
        self._engine = OnnxSession(
            path,
            thread_count=scenario.thread_count or default_thread_count(),
            providers=providers_for(scenario.api),
            prepack=scenario.repack,
        )
        self.vocab_count = self.ports.vocab_count
        self.context_tokens = scenario.context_tokens
        self.ubatch_tokens = scenario.ubatch_tokens
        self._end_tokens = end_tokens(path.parent)
        self._binding = self._engine.raw.io_binding()
        self._row = np.zeros((1, self.vocab_count), _DTYPES.get(self.ports.logits_dtype, np.float32))
        # Slices of these are the engine's inputs: nothing is built for a token.
        self._ones = np.ones((1, self.context_tokens), np.int64)
        self._ramp = np.arange(self.context_tokens, dtype=np.int64)[None]
        self._ids = np.zeros((1, self.context_tokens), np.int64)
        self._keep = np.zeros((), np.int64)
        self._hold(
            [np.zeros((1, heads, 0, size), _DTYPES[self.ports.dtype]) for heads, size in self.ports.sizes]
        )
        self._keep_nothing()

    def _hold(self, arrays: list[NDArray[Any]]) -> None:
        """Make these the cache."""
        self._arrays = arrays  # the values are over their memory
        self._bind([_value_of(array) for array in arrays])

    def _bind(self, values: Sequence[Any]) -> None:
        """Name these as the cache of the next run."""
        self._values = values
        for past, present, value in zip(self.ports.past, self.ports.present, values, strict=True):
            self._binding.bind_ortvalue_input(past, value)
            self._binding.bind_output(present, "cpu")

    @cached_property
    def begin_token(self) -> int | None:
        """The token that a text begins with, where the tokenizer puts one."""
        special = self._tokenizer.encode("").ids
        return special[0] if special else None

    def _forward(self, tokens: Sequence[int], logits: str) -> NDArray[Any]:
        count, every = len(tokens), logits == "all"
        kept = np.empty((count if every else 0, self.vocab_count), self._row.dtype)
        rows = self._row
        for start in range(0, count, self.ubatch_tokens):
            part = tokens[start : start + self.ubatch_tokens]
            if every:
                rows = kept[start : start + len(part)]
            elif self.ports.keeps or len(part) == 1:  # a graph that is asked for no row would give all
                rows = self._row
            else:
                rows = np.empty((len(part), self.vocab_count), self._row.dtype)
            self._run(part, rows)
        if logits != "last":
            return kept
        if rows is not self._row:
            self._row[:] = rows[-1]
            self._binding.bind_ortvalue_output(
                "logits", _value_of(self._row[None])
            )  # the binding holds the rows too
        return self._row

    def _run(self, tokens: Sequence[int], rows: NDArray[Any]) -> None:
        """One run of the engine, its logits written to ``rows`` [kept, vocab_count]."""
        count = len(tokens)
        end = self._length + count
        self._ids[0, :count] = tokens
        arrays = {"input_ids": self._ids[:, :count]}
        if "attention_mask" in self.ports.inputs:
            arrays["attention_mask"] = self._ones[:, :end]
        if "position_ids" in self.ports.inputs:
            arrays["position_ids"] = self._ramp[:, self._length : end]
        if self.ports.keeps:
            self._keep[()] = len(rows)
            arrays[KEEP_INPUT] = self._keep
        for name, array in arrays.items():
            self._binding.bind_ortvalue_input(name, _value_of(array))
        self._binding.bind_ortvalue_output("logits", _value_of(rows[None]))
        self._engine.raw.run_with_iobinding(self._binding)
        self._arrays = []
        self._bind(self._binding.get_outputs()[: len(self.ports.present)])
        self._length = end

    def _cut(self, position: int) -> None:
        # The shape is the length: a copy of what stays.
        self._hold([value.numpy()[:, :, :position].copy() for value in self._values])

    def close(self) -> None:
        """Free the model and the cache; safe to call twice."""
        self._binding, self._values = None, ()
        self._engine.close()


def _value_of(array: NDArray[Any]) -> Any:
    """An engine value over the array's own memory; the array must live as long as the value."""
    return runtime().OrtValue.ortvalue_from_numpy(array)


def end_tokens(folder: Path) -> frozenset[int]:
    """Tokens that end a generation, by the folder's configurations (BadDataError: no JSON).

    Empty where none says.
    """
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        values = json_in(path, "a JSON object") if path.is_file() else None
        ids = values.get("eos_token_id") if isinstance(values, dict) else None
        if ids is None:
            continue
        tokens = ids if isinstance(ids, list) else [ids]
        if not all(isinstance(token, int) for token in tokens):
            raise BadDataError(path, "eos_token_id", say(ids), "the number of a token, or a list of them")
        return frozenset(tokens)
    return frozenset()


class Ort(Packaged):
    """The ONNX Runtime."""

    name = "ort"
    formats = ("onnx",)
    needs = tuple((module, module, "onnx") for module in ("onnxruntime", "tokenizers"))

    def identity(self, scenario: Scenario) -> EngineIdentity:
        """Version, providers and the options a run of ``scenario`` uses."""
        ort = runtime()
        return EngineIdentity(
            name="onnxruntime",
            version=str(ort.__version__),
            build=str(ort.get_build_info()).removeprefix("ORT Build Info: "),
            thread_count=scenario.thread_count or default_thread_count(),
            options={
                "context_tokens": scenario.context_tokens,
                "ubatch_tokens": scenario.ubatch_tokens,
                "repack": scenario.repack,
                "providers": list(providers_for(scenario.api)),
            },
        )

    def open(self, path: Path, scenario: Scenario) -> OrtSession:
        """Load a model; errors are those of :class:`OrtSession`."""
        return OrtSession(path, scenario)


RUNTIME = Ort()
