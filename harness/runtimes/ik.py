"""ik_llama.cpp through its prebuilt wheel, with the session of llama.cpp: another library behind the same code.

Its low-bit types (IQ-K, trellis) are why one takes it. Its C interface is llama.cpp's of an earlier date: the functions
that have changed since are named here in today's words, so that :mod:`harness.runtimes.llamacpp` runs on both.
"""

import ctypes
from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from harness.domain.record import EngineIdentity
from harness.domain.scenario import Scenario
from harness.errors import MissingPackageError, RefusedError
from harness.runtimes.llamacpp import LlamaCpp
from harness.runtimes.llamacpp.library import ENGINE_LOG
from harness.runtimes.llamacpp.session import LlamaSession

_POINTER, _INT, _BOOL = ctypes.c_void_p, ctypes.c_int32, ctypes.c_bool
_CALLS: Final[dict[str, tuple[str, Any, tuple[Any, ...]]]] = {
    "llama_model_free": ("llama_free_model", None, (_POINTER,)),
    "llama_vocab_get_add_bos": ("llama_vocab_get_add_bos", _BOOL, (_POINTER,)),
    "llama_vocab_bos": ("llama_vocab_bos", _INT, (_POINTER,)),
    "llama_vocab_is_eog": ("llama_vocab_is_eog", _BOOL, (_POINTER, _INT)),
    "llama_tokenize": (
        "llama_vocab_tokenize", _INT,
        (_POINTER, ctypes.c_char_p, _INT, ctypes.POINTER(_INT), _INT, _BOOL, _BOOL),
    ),
    "llama_n_ctx": ("llama_n_ctx", ctypes.c_uint32, (_POINTER,)),
    "llama_n_batch": ("llama_n_batch", ctypes.c_uint32, (_POINTER,)),
    "llama_synchronize": ("llama_synchronize", None, (_POINTER,)),
    "llama_get_logits": ("llama_get_logits", ctypes.POINTER(ctypes.c_float), (_POINTER,)),
    "llama_memory_seq_rm": ("llama_kv_cache_seq_rm", _BOOL, (_POINTER, _INT, _INT, _INT)),
    "llama_memory_seq_cp": ("llama_kv_cache_seq_cp", None, (_POINTER, _INT, _INT, _INT, _INT)),
    "llama_print_system_info": ("llama_print_system_info", ctypes.c_char_p, ()),
    "llama_log_set": ("llama_log_set", None, (_POINTER, _POINTER)),
}  # fmt: skip
"""Today's name -> its name here, type of the result, types of the arguments."""


class _Library:
    """ik's bindings under the names of llama-cpp-python's."""

    LLAMA_LOAD_MODE_MMAP, LLAMA_LOAD_MODE_NONE = 1, 0
    LLAMA_FLASH_ATTN_TYPE_AUTO, LLAMA_FLASH_ATTN_TYPE_DISABLED = -1, 0
    llama_log_callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)

    def __init__(self, api: Any) -> None:
        self._api = api
        self.log_callback = self.llama_log_callback(ENGINE_LOG.write)  # kept: the library holds its address alone
        for name, (own, result, arguments) in _CALLS.items():
            function = api._lib[own]  # a fresh object: its types are ours alone
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._api, name)

    def function(self, name: str, result: Any, *arguments: Any) -> Any:
        """A function of ggml, with its types."""
        function = self._api._lib[name]
        function.restype, function.argtypes = result, list(arguments)
        return function

    def llama_get_memory(self, context: Any) -> Any:
        """The cache is part of the context."""
        return context

    def llama_memory_clear(self, context: Any, _data: bool) -> None:
        """Forget every sequence."""
        self._api.llama_kv_cache_clear(context)

    def llama_model_default_params(self) -> Any:
        """Parameters that take today's names for mapping and repacking."""
        return _renamed(self._api.llama_model_default_params(), use_mmap="load_mode", repack_tensors="use_extra_bufts")

    def llama_context_default_params(self) -> Any:
        """Parameters that take today's name for flash attention."""
        return _renamed(self._api.llama_context_default_params(), flash_attn="flash_attn_type")

    def llama_detokenize(self, vocab: Any, ids: Any, count: int, out: Any, room: int, _rm: bool, special: bool) -> int:
        """Text of tokens, piece by piece: the library's own wants the model, which a vocabulary does not lead to."""
        call = self._api._lib["llama_token_to_piece_vocab"]
        call.restype, call.argtypes = _INT, (_POINTER, _INT, ctypes.c_char_p, _INT, _INT, _BOOL)
        piece, text = ctypes.create_string_buffer(512), b""
        for token in ids[:count]:
            length = call(vocab, token, piece, len(piece), 0, special)
            text += piece.raw[: max(0, length)]
        if len(text) > room:
            return -len(text)
        ctypes.memmove(out, text, len(text))
        return len(text)


def _renamed(params: Any, **names: str) -> Any:
    """The structure, with further names for some fields: setting one of those sets the field.

    A name that the structure has in neither form is ignored by the library: there it has no such choice.
    """

    def alias(field: str) -> property:
        return property(lambda self: getattr(self, field), lambda self, value: setattr(self, field, bool(value)))

    base = type(params)
    kind: Any = type(base.__name__, (base,), {own: alias(field) for field, own in names.items()})
    return kind.from_buffer_copy(params)


@cache
def library() -> Any:
    """The bindings, initialised, with the log captured (MissingPackageError where they are not installed)."""
    if find_spec("ik_llama_cpp") is None:
        raise MissingPackageError("ik-llama-cpp-python", "ik")
    lib = _Library(import_module("ik_llama_cpp._ctypes_api"))
    lib.llama_log_set(lib.log_callback, None)
    lib.llama_backend_init()
    return lib


class IkLlama(LlamaCpp):
    """The ik_llama.cpp runtime: llama.cpp's session on another library."""

    name = "ik"

    def missing(self) -> str | None:
        """Why it cannot be used here; None when it can."""
        return None if find_spec("ik_llama_cpp") else str(MissingPackageError("ik-llama-cpp-python", "ik"))

    def library(self) -> Any:
        """The loaded library."""
        return library()

    def identity(self, scenario: Scenario) -> EngineIdentity:
        """Version of the wheel, instruction sets compiled in, and the options a run of ``scenario`` uses."""
        return self._described("ik_llama.cpp", self.package(), self.library(), scenario)

    def package(self) -> str:
        """The package that brings it, with its version; MissingPackageError where it is not installed."""
        if self.missing():
            raise MissingPackageError("ik-llama-cpp-python", "ik")
        return f"ik-llama-cpp-python {version('ik-llama-cpp-python')}"

    def open(self, path: Path, scenario: Scenario, **options: Any) -> LlamaSession:
        """Load a model as llama.cpp's runtime does; RefusedError for an option or api that this library has not."""
        if options.get("output_tokens"):
            raise RefusedError("ik_llama.cpp has no output_tokens")
        if scenario.api not in {"", "cpu"}:
            raise RefusedError(f"--api {scenario.api}: the wheel of ik_llama.cpp runs on the CPU")
        return super().open(path, scenario, **options)


RUNTIME = IkLlama()
