"""One KV cache over a loaded model: batches in, logits out as views, nothing copied that nobody reads."""

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from harness.core.arrays import Singles
from harness.core.errors import EngineError, RefusedError
from harness.core.ports import EndPass, Tap
from harness.core.result import EngineBuffer
from harness.core.scenario import Scenario
from harness.hardware.threads import default_thread_count
from harness.models.ggml import BLOCKS
from harness.runtimes.llamacpp.library import ENGINE_LOG, Library, library
from harness.runtimes.llamacpp.loaded_devices import buffers, place
from harness.runtimes.one_sequence import Rows, check_logits

DEFAULT_BATCH_TOKENS: Final = 2048
"""Tokens of one logical batch (``n_batch``), as llama-bench has it."""

NE_OFFSET, NB_OFFSET, OP_OFFSET, SOURCES_OFFSET, DATA_OFFSET, NAME_OFFSET = 16, 48, 80, 152, 248, 256
"""Where fields of ``struct ggml_tensor`` begin on 64-bit systems; its first one is the type (ggml.h)."""
_TYPE_F32: Final = 0
_DECODE_FAULTS: Final = {
    1: "no room left in the KV cache",
    2: "the computation was stopped",
    -1: "the batch is not valid",
    -2: "memory for the batch could not be had",
    -3: "the computation failed",
}


def name_of(node: int) -> bytes:
    """Name of the tensor at an address."""
    return ctypes.string_at(node + NAME_OFFSET)


def pointer_at(address: int) -> int:
    """Read the pointer that is stored at an address, 0 for a null pointer."""
    return ctypes.c_void_p.from_address(address).value or 0


EvalHook = Callable[[int, bool], bool]
"""Called with (address of the ``ggml_tensor``, ask) for each graph node: asked first (``ask=True``) whether
it wants the node's result, then, if it said yes, once the result is computed; returning False then stops the
graph."""


class LlamaSession(Rows):
    """One loaded model with one KV cache: llama.cpp's :class:`harness.core.ports.Session`.

    ``buffers`` holds the engine's own report of each device's weights, cache and scratch.

    Args:
        path: The GGUF file (the first one of a split model).
        scenario: Context, batch, KV type, threads, flash attention, mmap (anonymous memory then holds only
            what is repacked), repack, api and placement; an empty api is ``cpu``, which keeps everything from
            any GPU there is.
        batch_tokens: Most tokens of one ``llama_decode`` (``n_batch``); longer inputs are split.
        sequence_count: Sequences the cache can hold (``n_seq_max``); 0 takes the scenario's ``batch_count``.
        output_tokens: Most tokens with logits in one batch; 0 leaves it to the engine (all). A smaller number
            makes the compute buffer smaller.
        eval_hook: See :data:`EvalHook`.
        tap: Reads and may replace intermediate results; takes the place of an ``eval_hook``.
        lib: Bindings of another library with the same functions; None for llama.cpp's own.

    Raises:
        MissingPackageError: No package that brings llama.cpp is installed.
        EngineError: The engine refused the file or the options.
        RefusedError: The KV type is none that ggml has, fewer tokens may have logits than there are
            sequences, or the engine has no device of that api, or not so many cards.
    """

    def __init__(
        self,
        path: Path,
        scenario: Scenario,
        *,
        batch_tokens: int = DEFAULT_BATCH_TOKENS,
        sequence_count: int = 0,
        output_tokens: int = 0,
        eval_hook: EvalHook | None = None,
        tap: Tap | None = None,
        lib: Library | None = None,
    ) -> None:
        if scenario.kv_type not in BLOCKS:
            raise RefusedError(f"no KV cache type {scenario.kv_type!r}; one of: {', '.join(sorted(BLOCKS))}")
        sequences = sequence_count or scenario.batch_count
        outputs = output_tokens or batch_tokens
        if outputs < sequences:  # llama.cpp would end the process (GGML_ASSERT in graph_reserve)
            raise RefusedError(
                f"{sequences} sequences need room for the logits of {sequences} tokens in one batch, found {outputs} "
                f"({'output_tokens' if output_tokens else 'batch_tokens'})"
            )
        self._load(path, scenario, lib)
        lib = self.lib
        self._tap_hook = _TapHook(tap, lib) if tap is not None else None
        hook = self._tap_hook or eval_hook
        params = lib.llama_context_default_params()
        params.n_ctx = scenario.context_tokens
        params.n_batch = batch_tokens
        params.n_ubatch = min(scenario.ubatch_tokens, batch_tokens)
        params.n_seq_max = sequences
        # One buffer for all lets a fork share cells instead of copying them, but each pass looks at the cells
        # of all. The scenario's own sequences get one each, as llama-batched-bench and llama-server have it.
        params.kv_unified = sequence_count > 0 or scenario.batch_count == 1
        params.swa_full = False  # layers of a sliding window hold their window alone, as is predicted
        params.n_outputs_max = output_tokens
        self.thread_count = scenario.thread_count or default_thread_count()
        params.n_threads = params.n_threads_batch = self.thread_count
        params.type_k = params.type_v = BLOCKS[scenario.kv_type].type_id
        params.flash_attn_type = (
            lib.LLAMA_FLASH_ATTN_TYPE_AUTO if scenario.flash_attention else lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        # "cpu" is the CPU: with a GPU in the engine llama.cpp would copy weights of long prompts to it.
        params.op_offload = scenario.api not in {"", "cpu"}
        params.offload_kqv = params.op_offload and scenario.placement.kv_on_gpu
        if hook is not None:
            self._hook = lib.ggml_backend_sched_eval_callback(lambda node, ask, _user: bool(hook(node, ask)))
            params.cb_eval = self._hook
        told = len(ENGINE_LOG.sizes)
        self._context = lib.llama_init_from_model(self._model, params)
        self.buffers += buffers(ENGINE_LOG.sizes[told:])
        if not self._context:
            self.close()
            raise EngineError(
                f"llama.cpp made no context of {scenario.context_tokens} tokens "
                f"(KV type {scenario.kv_type}): {ENGINE_LOG.tail(3)}"
            )
        self._memory = lib.llama_get_memory(self._context)
        self.context_tokens: int = int(lib.llama_n_ctx(self._context))
        self.batch_tokens: int = int(lib.llama_n_batch(self._context))
        self.output_tokens = min(outputs, self.batch_tokens)
        self.kept_count = 0
        self._make_batch(self.batch_tokens)

    def _load(self, path: Path, scenario: Scenario, lib: Library | None) -> None:
        lib = self.lib = lib or library()
        lib.hear()
        params = lib.llama_model_default_params()
        params.load_mode = lib.LLAMA_LOAD_MODE_MMAP if scenario.mmap else lib.LLAMA_LOAD_MODE_NONE
        params.use_extra_bufts = scenario.repack
        held = None
        if lib.has_devices:
            held = place(params, scenario.api or "cpu", scenario.placement, lib)
        elif scenario.api not in {"", "cpu"}:  # a fork has devices of its own kind
            raise RefusedError(f"--api {scenario.api}: {lib.brought_by} runs on the CPU here")
        told = len(ENGINE_LOG.sizes)
        self._model = lib.llama_model_load_from_file(str(path).encode(), params)
        del held
        self.buffers = buffers(ENGINE_LOG.sizes[told:])
        if not self._model:
            raise EngineError(f"llama.cpp would not load {path}: {ENGINE_LOG.faults() or 'no reason given'}")
        if would_abort(lib, self._model, self.buffers):
            lib.llama_model_free(self._model)
            raise RefusedError(
                f"{path.name}: llama.cpp ends the process where it keeps the matrices of latent attention in AMX's "
                "layout (GGML_ASSERT(*cur_backend_id != -1)): run it with --without repack"
            )
        self.vocab = lib.llama_model_get_vocab(self._model)
        self.vocab_count: int = lib.llama_vocab_n_tokens(self.vocab)
        self.path = path

    def _make_batch(self, room: int) -> None:
        # One batch for the life of the session, its arrays owned by numpy so that filling them is a slice
        # assignment.
        self._tokens = np.zeros(room, np.int32)
        self._positions = np.zeros(room, np.int32)
        self._sequences = np.zeros(room, np.int32)
        self._flags = np.zeros(room, np.int8)
        self._ramp = np.arange(room, dtype=np.int32)
        counts = np.ones(room, np.int32)
        places = self._sequences.ctypes.data + 4 * np.arange(room, dtype=np.uintp)
        self._shared = counts, places  # the batch keeps their addresses alone
        self._batch = self.lib.llama_batch(n_tokens=0, embd=None)
        columns: dict[str, NDArray[Any]] = {
            "token": self._tokens,
            "pos": self._positions,
            "n_seq_id": counts,
            "seq_id": places,
            "logits": self._flags,
        }
        for name, array in columns.items():
            kind = type(getattr(self._batch, name))
            setattr(self._batch, name, ctypes.cast(array.ctypes.data, kind))

    # -- text
    # ---------------------------------------------------------------------------------------------------

    @property
    def begin_token(self) -> int | None:
        """Token that a prompt begins with; None for a model that has none or wants none."""
        if not self.lib.llama_vocab_get_add_bos(self.vocab):
            return None
        token = int(self.lib.llama_vocab_bos(self.vocab))
        if token >= 0:
            return token
        return None

    def is_end(self, token: int) -> bool:
        """Whether ``token`` ends a generation."""
        return bool(self.lib.llama_vocab_is_eog(self.vocab, token))

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of ``text``; EngineError where the model has no usable tokenizer."""
        data = text.encode()
        room = 3 * len(data) + 16  # a token has a byte at least, a space three where the vocabulary has none
        buffer = (ctypes.c_int32 * room)()
        count = self.lib.llama_tokenize(self.vocab, data, len(data), buffer, room, add_special, parse_special)
        if count < 0:
            raise EngineError(f"llama.cpp could not tokenize {len(data)} bytes of text")
        return list(buffer[:count])

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Text of token ids; undecodable bytes become U+FFFD."""
        ids = (ctypes.c_int32 * len(tokens))(*tokens)
        room = 0
        for _ in range(2):  # the first time it says how many bytes there are
            buffer = ctypes.create_string_buffer(room + 1)
            count = self.lib.llama_detokenize(self.vocab, ids, len(tokens), buffer, room, False, False)
            room = abs(count)
        return buffer.raw[:room].decode("utf-8", "replace")

    # -- forward passes
    # -----------------------------------------------------------------------------------------

    def decode(
        self, tokens: Sequence[int], *, position: int, sequence: int = 0, logits: str = "last"
    ) -> None:
        """Run ``tokens`` through the model at ``position`` of ``sequence``, and return when all are computed.

        Inputs longer than ``batch_tokens`` go in several batches; ``logits="all"`` needs a single one of at
        most ``output_tokens`` (ValueError): llama.cpp would end the process.
        """
        count = len(tokens)
        check_logits(logits)
        if logits == "all" and count > self.output_tokens:
            raise ValueError(f"logits of {count} tokens do not fit one batch of {self.output_tokens}")
        self.kept_count = 0
        for start in range(0, count, self.batch_tokens):
            part = tokens[start : start + self.batch_tokens]
            keep = [logits == "all"] * len(part)
            if logits == "last" and start + len(part) == count:
                keep[-1] = True
            self._run(part, self._ramp[: len(part)] + (position + start), sequence, keep)

    def compute_by(self, thread_count: int) -> None:
        """Compute with so many threads from the next pass on."""
        if thread_count != self.thread_count:
            self.thread_count = thread_count
            self.lib.llama_set_n_threads(self._context, thread_count, thread_count)

    def decode_rows(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        sequences: Sequence[int],
        keep: Sequence[bool] | None = None,
    ) -> None:
        """Run one batch of at most ``batch_tokens`` tokens, each with its own position and sequence.

        The arguments and the returned logits are those of :meth:`harness.core.ports.Session.decode_rows`.
        """
        self._run(tokens, positions, sequences, 1 if keep is None else keep)

    def _run(self, *columns: Any) -> None:
        """Run tokens, positions, sequences and flags of a batch, each for all its rows or one for all of them."""
        size = len(columns[0])
        arrays: tuple[NDArray[Any], ...] = self._tokens, self._positions, self._sequences, self._flags
        for array, column in zip(arrays, columns, strict=True):
            array[:size] = column
        self._batch.n_tokens = size
        self.kept_count = 0
        if status := self.lib.llama_decode(self._context, self._batch):
            reason = _DECODE_FAULTS.get(status, "")
            raise EngineError(
                f"llama_decode of {size} tokens returned {status} {reason}: {ENGINE_LOG.tail(2)}"
            )
        self.lib.llama_synchronize(self._context)
        if self._tap_hook is not None:
            self._tap_hook.raise_failure()
        self.kept_count = int(np.count_nonzero(self._flags[:size]))

    def all_logits(self) -> Singles:
        """Return a view of the last decode's logits [kept_count, vocab_count], in the order of its tokens."""
        rows = self.lib.llama_get_logits(self._context)
        if not rows or not self.kept_count:
            raise EngineError("the last decode kept no logits")
        kind = ctypes.c_float * (self.vocab_count * self.kept_count)
        block: Any = kind.from_address(ctypes.addressof(rows.contents))
        return np.frombuffer(block, np.float32).reshape(self.kept_count, self.vocab_count)

    def embedding(self, tokens: Sequence[int]) -> Singles:
        """The pooled vector [dim] of one text, as an encoder's file says; EngineError where the model pools nothing."""
        self.lib.llama_set_embeddings(self._context, True)
        self._run(tokens, self._ramp[: len(tokens)], 0, 1)
        row = self.lib.llama_get_embeddings_seq(self._context, 0)
        if not row:
            raise EngineError(f"{self.path.name} pools no vector: it is no sentence encoder")
        return np.ctypeslib.as_array(row, (self.lib.llama_model_n_embd(self._model),)).copy()

    # -- cache
    # --------------------------------------------------------------------------------------------------

    def truncate(self, position: int, *, sequence: int = 0) -> None:
        """Forget all of ``sequence`` from ``position`` on.

        Raises:
            EngineError: The model is recurrent, and its state cannot be cut at a position.
        """
        if not self.lib.llama_memory_seq_rm(self._memory, sequence, position, -1):
            raise EngineError(f"this model's cache cannot be cut at position {position}")

    def fork(self, source: int, target: int) -> None:
        """Make ``target`` share all that ``source`` has in the cache, in place of what it had."""
        self.lib.llama_memory_seq_rm(self._memory, target, -1, -1)
        self.lib.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def clear(self) -> None:
        """Forget every sequence."""
        self.lib.llama_memory_clear(self._memory, False)

    # -- life
    # ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Free the cache and the model; safe to call twice."""
        context = self._context
        self._context = None
        if context:
            self.lib.llama_free(context)
        model = self._model
        self._model = None
        if model:
            self.lib.llama_model_free(model)


def would_abort(lib: Library, model: Any, laid: Sequence[EngineBuffer]) -> bool:
    """Whether making a context of a loaded model ends the process.

    Latent attention (deepseek2, mistral4, kimi-linear, glm-dsa) multiplies a stack of matrices, one a head,
    by a view whose heads lie apart. AMX takes such a stack when the model is loaded, and refuses that view in
    the graph; nobody else can read its layout. A header that has ``attention.key_length_mla`` has such
    stacks.

    Source: llama.cpp v0.5.0, ggml/src/ggml-cpu/amx/amx.cpp (supports_op), src/llama-graph.cpp
    (build_attn_mha).
    """
    if not any(buffer.device == "AMX" for buffer in laid):
        return False
    text = ctypes.create_string_buffer(128)
    if lib.llama_model_meta_val_str(model, b"general.architecture", text, len(text)) < 0:
        return False
    key = text.value + b".attention.key_length_mla"
    return bool(lib.llama_model_meta_val_str(model, key, text, len(text)) >= 0)


class _TapHook:
    """A tap as llama.cpp's evaluation callback: values out of the graph, and back into it.

    An exception must not cross the engine's C frames: it is kept, the pass stops there, and
    :meth:`raise_failure` raises it once the engine has returned.
    """

    def __init__(self, tap: Tap, lib: Library) -> None:
        self._tap = tap
        self._lib = lib
        self._names: dict[bytes, str | None] = {}  # None for what is not wanted
        self._failure: BaseException | None = None

    def __call__(self, node: int, ask: bool) -> bool:
        """Answer the engine's question about one node, as :data:`EvalHook` describes."""
        try:
            name = self._wanted(name_of(node))
            if ask or name is None:
                return name is not None
            self._hand_over(node, name)
        except EndPass:
            return False
        except BaseException as error:  # noqa: BLE001  raised again outside of the engine
            self._failure = error
            return False
        return True

    def _wanted(self, raw: bytes) -> str | None:
        if raw not in self._names:
            name = raw.decode("utf-8", "replace")
            self._names[raw] = name if self._tap.wants(name) else None
        return self._names[raw]

    def _hand_over(self, node: int, name: str) -> None:
        if ctypes.c_int.from_address(node).value != _TYPE_F32 or not self._lib.ggml_is_contiguous(node):
            raise EngineError(f"{name} is no plain float32 tensor in this build of llama.cpp")
        sizes = [int(n) for n in (ctypes.c_int64 * 4).from_address(node + NE_OFFSET)]
        while len(sizes) > 2 and sizes[-1] == 1:
            sizes.pop()
        values = np.empty(sizes[::-1], np.float32)
        self._lib.ggml_backend_tensor_get(node, values.ctypes.data, 0, values.nbytes)
        replaced = self._tap(name, values)
        if replaced is None:
            return
        if replaced.shape != values.shape:
            raise EngineError(f"{name}: the tap gave shape {replaced.shape}, expected {values.shape}")
        replaced = np.ascontiguousarray(replaced, np.float32)
        self._lib.ggml_backend_tensor_set(node, replaced.ctypes.data, 0, replaced.nbytes)

    def raise_failure(self) -> None:
        """Raise what went wrong during the last pass, once."""
        failure = self._failure
        self._failure = None
        if failure is not None:
            raise failure
