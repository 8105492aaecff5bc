"""One loaded ONNX decoder with its KV cache bound to the engine: no cache goes through Python."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.domain.foreign import json_of, read_limited, say
from harness.domain.scenario import Scenario
from harness.errors import BadDataError, EngineError
from harness.onnx.decoder import KEEP_INPUT, decoder_ports
from harness.onnx.graph import read_graph
from harness.onnx.session import OnnxSession, providers_for
from harness.runtimes._rows import TOKENIZER_FILE, RowsInRuns, Tokenized, check_logits
from harness.runtimes._threads import default_thread_count
from harness.runtimes.ort.cache import DTYPES, Grown, InPlace, value_of


class OrtSession(Tokenized, RowsInRuns):
    """One loaded model with one cache for each sequence; implements :class:`harness.ports.Session`.

    ``tokenizer.json`` lies beside the ONNX file. Of the scenario it takes context, physical batch, threads and repack;
    so many sequences may be used, 0: its ``batch_count``.

    Raises:
        MissingPackageError: onnxruntime or tokenizers is not installed.
        RefusedError: The graph is no decoder that can be run here.
        BadDataError: A file is missing or is not what it should be.
        EngineError: The engine refused the graph.
    """

    def __init__(self, path: Path, scenario: Scenario, *, sequence_count: int = 0) -> None:
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
        self.sequence_count = sequence_count or scenario.batch_count
        self._end_tokens = end_tokens(path.parent)
        self.kept_count = 0
        self._caches: dict[int, Grown | InPlace] = {}
        self._binding = self._engine.raw.io_binding()
        self._bound: Any = None  # the in-place cache whose buffers are bound already
        self._logits_dtype = DTYPES.get(self.ports.logits_dtype, np.float32)
        self._rows: NDArray[Any] = np.zeros((1, self.vocab_count), self._logits_dtype)
        self._kept = self._rows[:0]
        # Slices of these are the engine's inputs: nothing is built for a token.
        self._ones = np.ones((1, self.context_tokens), np.int64)
        self._ramp = np.arange(self.context_tokens, dtype=np.int64)[None]
        self._ids = np.zeros((1, self.context_tokens), np.int64)
        self._keep = np.zeros((), np.int64)

    @cached_property
    def begin_token(self) -> int | None:
        """The token that a text begins with, where the tokenizer puts one."""
        special = self._tokenizer.encode("").ids
        return special[0] if special else None

    # -- forward passes -----------------------------------------------------------------------------------------

    def decode(self, tokens: Sequence[int], *, position: int, sequence: int = 0, logits: str = "last") -> None:
        """Run ``tokens`` through the model at ``position``, the end of ``sequence`` (EngineError anywhere else).

        Inputs longer than ``ubatch_tokens`` go in several runs.
        """
        check_logits(logits)
        cache = self._cache(sequence)
        count = len(tokens)
        if position != cache.length:
            raise EngineError(f"sequence {sequence} has {cache.length} tokens, got a batch at {position}")
        if position + count > self.context_tokens:
            raise EngineError("no room left in the KV cache")
        kept = {"none": 0, "last": min(count, 1), "all": count}[logits]
        self.kept_count = 0
        if kept > len(self._rows):
            self._rows = np.empty((kept, self.vocab_count), self._logits_dtype)
        for start in range(0, count, self.ubatch_tokens):
            stop = min(start + self.ubatch_tokens, count)
            rows = self._room(start, stop, logits)
            self._run(cache, tokens[start:stop], position + start, rows)
            if logits == "last" and stop == count:
                self._kept = rows[-1:]
                self._let_go(rows)
        if logits != "last":
            self._kept = self._rows[:kept]
        self.kept_count = kept

    def _let_go(self, rows: NDArray[Any]) -> None:
        """Keep the last row alone of a graph that gives all: 64 rows of 49,152 are 12.6 MB that nobody reads again."""
        if len(rows) == 1:
            return
        self._rows = self._kept = rows[-1:].copy()
        self._binding.bind_ortvalue_output("logits", value_of(self._rows[None]))  # the binding holds the rows too

    def _room(self, start: int, stop: int, logits: str) -> NDArray[Any]:
        """Where the logits of a run go: [rows, vocab_count], a part of the kept rows where they are wanted."""
        if logits == "all":
            return self._rows[start:stop]
        if self.ports.keeps:
            return self._rows[:1]  # a graph that is asked for none would give all
        size = stop - start
        if size == 1:
            return self._rows[:1]
        if size > len(self._rows):
            self._rows = np.empty((size, self.vocab_count), self._logits_dtype)
        return self._rows[:size]

    def _run(self, cache: Grown | InPlace, tokens: Sequence[int], position: int, rows: NDArray[Any]) -> None:
        count = len(tokens)
        end = position + count
        binding, inputs = self._binding, self.ports.inputs
        self._ids[0, :count] = tokens
        arrays = {"input_ids": self._ids[:, :count]}
        if "attention_mask" in inputs:
            arrays["attention_mask"] = self._ones[:, :end]
        if "position_ids" in inputs:
            arrays["position_ids"] = self._ramp[:, position:end]
        if self.ports.keeps:
            self._keep[()] = len(rows)
            arrays[KEEP_INPUT] = self._keep
        for name, array in arrays.items():
            binding.bind_ortvalue_input(name, value_of(array))
        if self._bound is not cache:
            cache.bind(binding)
            self._bound = cache if isinstance(cache, InPlace) else None
        binding.bind_ortvalue_output("logits", value_of(rows[None]))
        try:
            self._engine.raw.run_with_iobinding(binding)
        except Exception as error:
            raise EngineError(f"ONNX Runtime failed on {count} tokens at {position}: {error}") from error
        cache.take(binding.get_outputs() if isinstance(cache, Grown) else (), end)

    # -- cache --------------------------------------------------------------------------------------------------

    def _cache(self, sequence: int) -> Grown | InPlace:
        if sequence not in self._caches:
            if not 0 <= sequence < self.sequence_count:
                raise EngineError(f"sequence {sequence}: this session was opened for {self.sequence_count}")
            shared = self.ports.shared
            self._caches[sequence] = InPlace(self.ports, self.context_tokens) if shared else Grown(self.ports)
        return self._caches[sequence]

    def truncate(self, position: int, *, sequence: int = 0) -> None:
        """Forget all of ``sequence`` from ``position`` on."""
        self._cache(sequence).truncate(position)

    def fork(self, source: int, target: int) -> None:
        """Make ``target`` share all that ``source`` has; EngineError where the session has not so many sequences."""
        self._cache(target)
        self._caches[target] = self._cache(source).fork()

    def clear(self) -> None:
        """Forget every sequence; buffers stay for the next."""
        for sequence in list(self._caches):
            self.truncate(0, sequence=sequence)

    # -- life ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Free the model and the caches; safe to call twice."""
        self._binding = self._bound = None
        self._caches.clear()
        self._engine.close()


def end_tokens(folder: Path) -> frozenset[int]:
    """Tokens that end a generation, by the folder's configurations (BadDataError: no JSON); empty where none says."""
    for name in ("generation_config.json", "config.json", "genai_config.json"):
        path = folder / name
        if not path.is_file():
            continue
        values = json_of(read_limited(path), path, "a JSON object")
        found = values.get("eos_token_id", values.get("model")) if isinstance(values, dict) else None
        found = found.get("eos_token_id") if isinstance(found, dict) else found
        tokens = found if isinstance(found, list) else [found]
        if found is not None and not all(isinstance(token, int) for token in tokens):
            raise BadDataError(path, "eos_token_id", say(found), "the number of a token, or a list of them")
        if found is not None:
            return frozenset(tokens)
    return frozenset()
