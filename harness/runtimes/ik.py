"""ik_llama.cpp through its prebuilt wheel, with the session of llama.cpp: another library behind the same code.

Its low-bit types (IQ-K, trellis) are why one takes it. Its C interface is llama.cpp's of an earlier date:
what has changed since has today's names and forms here, so that :mod:`harness.runtimes.llamacpp` runs on
both.
"""

import ctypes
from functools import cache
from importlib import import_module
from importlib.metadata import version
from typing import Any, Final

from harness.core.errors import MissingPackageError
from harness.core.plugins import Packaged
from harness.core.record import EngineIdentity
from harness.core.scenario import Scenario
from harness.runtimes.llamacpp import LlamaCpp
from harness.runtimes.llamacpp.library import Library

_NAMES: Final = {
    "llama_model_free": "llama_free_model",
    "llama_tokenize": "llama_vocab_tokenize",
    "llama_memory_seq_rm": "llama_kv_cache_seq_rm",
    "llama_memory_seq_cp": "llama_kv_cache_seq_cp",
}
"""Today's names of functions, and theirs; arguments and results are the same."""
_PACKAGE: Final = ("ik-llama-cpp-python", "ik")


class _IkLibrary(Library):
    """The functions of ik's wheel, over the structures of its own bindings."""

    LLAMA_LOAD_MODE_MMAP, LLAMA_LOAD_MODE_NONE = 1, 0
    has_devices = False
    _beside: Any = ()

    def __init__(self, api: Any) -> None:
        self.llama_batch = api.llama_batch
        self.ggml_backend_sched_eval_callback = api.ggml_backend_sched_eval_callback
        self._api = api
        self._start([api._lib], _PACKAGE[0])

    def _check_layout(self) -> None:
        """Its bindings come with it: they have its layout."""

    def _choose_variant(self) -> None:
        """Its wheel has one library."""

    def __getattr__(self, name: str) -> Any:
        if name in _NAMES or not hasattr(self._api, name):
            return super().__getattr__(name)
        return getattr(self._api, name)

    def symbol(self, name: str) -> Any:
        return super().symbol(_NAMES.get(name, name))

    def llama_get_memory(self, context: Any) -> Any:
        """The cache is part of the context."""
        return context

    def llama_memory_clear(self, context: Any, _data: bool) -> None:
        """Forget every sequence."""
        self._api.llama_kv_cache_clear(context)

    def llama_model_load_from_file(self, path: bytes, params: Any) -> Any:
        """A model, its parameters given by today's names for mapping and repacking."""
        params.use_mmap, params.repack_tensors = bool(params.load_mode), bool(params.use_extra_bufts)
        return self._api.llama_model_load_from_file(path, params)

    def llama_init_from_model(self, model: Any, params: Any) -> Any:
        """A context, its parameters given by today's name for flash attention.

        What this library has in neither form it ignores: there it has no such choice.
        """
        params.flash_attn = bool(params.flash_attn_type)
        return self._api.llama_init_from_model(model, params)

    def llama_detokenize(
        self, vocab: Any, ids: Any, count: int, out: Any, room: int, _rm: bool, special: bool
    ) -> int:
        """Text of tokens, piece by piece: the library's own wants the model, which a vocabulary does not lead to."""
        piece = ctypes.create_string_buffer(512)
        text = b""
        for token in ids[:count]:
            length = self.llama_token_to_piece_vocab(vocab, token, piece, len(piece), 0, special)
            text += piece.raw[: max(0, length)]
        ctypes.memmove(out, text, min(len(text), room))
        return len(text)


@cache
def library() -> Library:
    """The bindings, initialised, with the log captured."""
    return _IkLibrary(import_module("ik_llama_cpp._ctypes_api"))


class IkLlama(Packaged, LlamaCpp):
    """The ik_llama.cpp runtime: llama.cpp's session on another library."""

    name = "ik"
    needs = (("ik_llama_cpp", *_PACKAGE),)

    def library(self) -> Library:
        """The loaded library."""
        self.package()
        return library()

    def identity(self, scenario: Scenario) -> EngineIdentity:
        """Version of the wheel, instruction sets compiled in, and the options a run of ``scenario`` uses."""
        return self._described("ik_llama.cpp", self.package(), self.library(), scenario)

    def package(self) -> str:
        """The wheel with its version; MissingPackageError where it is not installed."""
        if self.missing():
            raise MissingPackageError(*_PACKAGE)
        return f"{_PACKAGE[0]} {version(_PACKAGE[0])}"


RUNTIME = IkLlama()
