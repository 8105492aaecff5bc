"""Run ONNX decoders by ONNX Runtime, the KV cache bound to the engine: no cache goes through Python.

The cache outputs of one run are bound as the cache inputs of the next. The names are those that optimum-onnx
and the onnxruntime-genai builder write: ``input_ids``, ``attention_mask``, ``position_ids``,
``past_key_values.<layer>.key|value`` and ``present.<layer>.key|value``, ``logits``. ``num_logits_to_keep`` is
the name that published exports use for "of the last so many tokens only" (0 for all).
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.core.errors import BadDataError, RefusedError
from harness.core.plugins import Packaged
from harness.core.record import EngineIdentity
from harness.core.scenario import Scenario
from harness.hardware.threads import default_thread_count
from harness.onnx.ort_session import OnnxSession, providers_for, runtime
from harness.runtimes.one_sequence import TOKENIZER_FILE, OneSequence, Tokenized

KEEP_INPUT: Final = "num_logits_to_keep"
_KNOWN: Final = frozenset({"input_ids", "attention_mask", "position_ids", KEEP_INPUT})
_TYPES: Final[dict[str, Any]] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_PAST: Final = re.compile(r"past_key_values\.(\d+)\.(key|value)")


class DecoderPorts(NamedTuple):
    """The inputs and outputs of a decoder; those of its cache are in the same order, with their types.

    Attributes:
        sizes: Head count and head size of each cache input.
    """

    past: tuple[str, ...]
    present: tuple[str, ...]
    dtype: Any
    sizes: tuple[tuple[int, int], ...]
    vocab_count: int
    inputs: frozenset[str]


def decoder_ports(inputs: Sequence[Any], outputs: Sequence[Any], name: str) -> DecoderPorts:
    """The ports of a decoder with a cache, of those that the engine tells of a graph.

    RefusedError where the graph is something else, or of another form.
    """
    past = [p for p in inputs if _PAST.fullmatch(p.name)]
    others = {p.name for p in inputs} - {p.name for p in past}
    shapes = {p.name: p.shape for p in outputs}
    if "logits" not in shapes or "input_ids" not in others:
        raise RefusedError(f"{name} is not a language model: it has no input_ids or no logits")
    if not past:
        raise RefusedError(f"{name} has no cache: export it with past (task text-generation-with-past)")
    if unknown := sorted(others - _KNOWN):
        raise RefusedError(f"{name} has an input {unknown[0]!r} that this runtime does not know")
    present = [p.name.replace("past_key_values", "present") for p in past]
    if missing := [p for p in present if p not in shapes]:
        raise RefusedError(f"{name} has a cache input without its output {missing[0]!r}")
    kinds = {p.type for p in past}
    if len(kinds) != 1 or not kinds <= _TYPES.keys():
        raise RefusedError(f"{name} keeps its cache as {', '.join(sorted(kinds))}: F32 or F16 is supported")
    *_, vocab_count = shapes["logits"] or ("?",)
    if not isinstance(vocab_count, int):
        raise RefusedError(f"{name} does not say how many logits it has")
    sizes = []
    for port in past:
        match port.shape:
            case [_, int(heads), _, int(size)]:
                sizes.append((heads, size))
            case _:
                raise RefusedError(
                    f"{name}: {port.name} is {port.shape}, expected [batch, heads, tokens, head size]"
                )
    return DecoderPorts(
        past=tuple(p.name for p in past),
        present=tuple(present),
        dtype=_TYPES[past[0].type],
        sizes=tuple(sizes),
        vocab_count=vocab_count,
        inputs=frozenset(others),
    )


class OrtSession(Tokenized, OneSequence):
    """One loaded model with one sequence; implements :class:`harness.core.ports.Session` but for ``fork``.

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
        self._folder = path.parent
        if not (path.parent / TOKENIZER_FILE).is_file():
            raise BadDataError(path.parent / TOKENIZER_FILE, "", "no such file", "the model's tokenizer")
        self._engine = OnnxSession(
            path,
            thread_count=scenario.thread_count or default_thread_count(),
            providers=providers_for(scenario.api),
            prepack=scenario.repack,
        )
        raw = self._engine.raw
        self.ports = decoder_ports(raw.get_inputs(), raw.get_outputs(), f"{path.parent.name}/{path.name}")
        self.vocab_count = self.ports.vocab_count
        self.context_tokens = scenario.context_tokens
        self._step_tokens = scenario.ubatch_tokens
        self._binding = raw.io_binding()
        empty = [np.zeros((1, heads, 0, size), self.ports.dtype) for heads, size in self.ports.sizes]
        self._hold(list(map(_value_of, empty)))
        self._keep_nothing()

    def _hold(self, values: Sequence[Any]) -> None:
        """Make these the cache of the next run."""
        self._values = values
        for past, present, value in zip(self.ports.past, self.ports.present, values, strict=True):
            self._binding.bind_ortvalue_input(past, value)
            self._binding.bind_output(present, "cpu")
        self._binding.bind_output("logits", "cpu")

    def _forward(self, tokens: Sequence[int], logits: str) -> NDArray[Any]:
        kept = [self._kept[:0]]
        for start in range(0, len(tokens), self._step_tokens):
            rows = self._run(tokens[start : start + self._step_tokens], logits == "all")
            if logits == "all":
                kept.append(rows)
        if logits == "last":
            kept.append(rows[-1:])
        return np.concatenate(kept)

    def _run(self, tokens: Sequence[int], every: bool) -> NDArray[Any]:
        """Logits [kept, vocab_count] of one run of the engine: of every token, or of the last at least."""
        end = self._length + len(tokens)
        feeds = {
            "input_ids": np.array([tokens], np.int64),
            "attention_mask": np.ones((1, end), np.int64),
            "position_ids": np.arange(self._length, end, dtype=np.int64)[None],
            KEEP_INPUT: np.array(len(tokens) if every else 1, np.int64),
        }
        for name in self.ports.inputs:
            self._binding.bind_ortvalue_input(name, _value_of(feeds[name]))
        self._engine.raw.run_with_iobinding(self._binding)
        *values, found = self._binding.get_outputs()
        self._hold(values)
        self._length = end
        rows: NDArray[Any] = found.numpy()[0]
        return rows

    def _cut(self, position: int) -> None:
        # The shape is the length: a copy of what stays.
        self._hold([_value_of(value.numpy()[:, :, :position].copy()) for value in self._values])

    def close(self) -> None:
        """Free the model and the cache; safe to call twice."""
        self._binding, self._values = None, ()
        self._engine.close()


def _value_of(array: NDArray[Any]) -> Any:
    """An engine value over the array's own memory, which it holds."""
    return runtime().OrtValue.ortvalue_from_numpy(array)


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
