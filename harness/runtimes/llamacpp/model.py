"""Weights and vocabulary of one model file."""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.domain.scenario import Scenario
from harness.errors import EngineError
from harness.runtimes.llamacpp.devices import buffers, place
from harness.runtimes.llamacpp.library import ENGINE_LOG, library


class LlamaModel:
    """One model file in memory; ``buffers`` is where the engine laid its weights.

    Args:
        path: The GGUF file (the first one of a split model).
        scenario: Whether the file is mapped (anonymous memory then holds only what is repacked) and repacked, api and
            placement; an empty api is ``cpu``, which keeps everything from any GPU there is.
        lib: Bindings of another library with the same functions; None for llama.cpp's own.

    Raises:
        MissingPackageError: llama-cpp-python is not installed.
        EngineError: The engine refused the file.
        RefusedError: The engine has no device of that api, or not so many cards.
    """

    def __init__(self, path: Path, scenario: Scenario, *, lib: Any = None) -> None:
        own = lib is None  # another library has devices of its own kind, and is asked for its CPU alone
        lib = self.lib = lib or library()
        params = lib.llama_model_default_params()
        params.load_mode = lib.LLAMA_LOAD_MODE_MMAP if scenario.mmap else lib.LLAMA_LOAD_MODE_NONE
        params.use_extra_bufts = scenario.repack
        held = place(params, scenario.api or "cpu", scenario.placement) if own else []
        told = len(ENGINE_LOG.sizes)
        self._model = lib.llama_model_load_from_file(str(path).encode(), params)
        del held
        self.buffers = buffers(ENGINE_LOG.sizes[told:])
        if not self._model:
            raise EngineError(f"llama.cpp would not load {path}: {_reason()}")
        self.vocab = lib.llama_model_get_vocab(self._model)
        self.vocab_count: int = lib.llama_vocab_n_tokens(self.vocab)
        self.path = path

    @property
    def begin_token(self) -> int | None:
        """Token that a prompt begins with; None for a model that has none or wants none."""
        if not self.lib.llama_vocab_get_add_bos(self.vocab):
            return None
        token = int(self.lib.llama_vocab_bos(self.vocab))
        return token if token >= 0 else None

    def is_end(self, token: int) -> bool:
        """Whether ``token`` ends a generation."""
        return bool(self.lib.llama_vocab_is_eog(self.vocab, token))

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of ``text``; EngineError where the model has no usable tokenizer."""
        data = text.encode()
        room = len(data) + 16
        for _ in range(2):
            buffer = (ctypes.c_int32 * room)()
            count = self.lib.llama_tokenize(self.vocab, data, len(data), buffer, room, add_special, parse_special)
            if count >= 0:
                return list(buffer[:count])
            room = -count
        raise EngineError(f"llama.cpp could not tokenize {len(data)} bytes of text")

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Text of token ids; undecodable bytes become U+FFFD."""
        ids = (ctypes.c_int32 * len(tokens))(*tokens)
        room = 32 + 16 * len(tokens)
        for _ in range(2):
            buffer = ctypes.create_string_buffer(room)
            count = self.lib.llama_detokenize(self.vocab, ids, len(tokens), buffer, room, False, False)
            if count >= 0:
                return buffer.raw[:count].decode("utf-8", "replace")
            room = -count
        raise EngineError(f"llama.cpp could not turn {len(tokens)} tokens into text")

    def close(self) -> None:
        """Free the weights; safe to call twice."""
        model, self._model = self._model, None
        if model:
            self.lib.llama_model_free(model)


def _reason() -> str:
    lines = [line for line in ENGINE_LOG.lines() if "error" in line.lower() or "fail" in line.lower()]
    return "; ".join(line.strip() for line in lines[-3:]) or ENGINE_LOG.tail(2) or "no reason given"
