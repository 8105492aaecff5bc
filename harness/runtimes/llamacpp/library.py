"""llama.cpp's shared library, whichever package brings it, with its log caught in a bounded ring instead of printed.

``llama-cpp-python`` compiles it for the machine; ``xllamacpp`` brings it built, inside its extension module; a release
of llama.cpp lies in the folder that ``LLAMA_CPP_LIB_PATH`` names, as for llama-cpp-python. Only the functions that are
called here are declared. Structures are those of the builds that both pinned packages bring, and the defaults that the
library fills in say at the start whether it has the same. Source: llama.cpp, include/llama.h.
"""

import ctypes
import os
import sys
from collections import deque
from collections.abc import Callable
from functools import cache, cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from harness.errors import EngineError, MissingPackageError

LOG_LINES_KEPT: Final = 400
LOG_LINE_CHARS: Final = 500
_CONTINUED_LEVEL: Final = 5  # GGML_LOG_LEVEL_CONT: goes on with the line before


class EngineLog:
    """Last lines of the engine's log; the library has one log for the process, so there is one of these."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=LOG_LINES_KEPT)
        self._open_line = ""
        self.mirror: Callable[[str], object] | None = None  # also gets every line
        self.sizes: list[str] = []  # every line that tells the size of a buffer: few, and wanted after the load

    def write(self, level: int, text: bytes | None, _user: object = None) -> None:
        """Take one message from the engine; runs in whatever thread the engine logs from."""
        line = self._open_line + (text or b"").decode("utf-8", "replace")
        if level != _CONTINUED_LEVEL and self._open_line and text != b"\n":
            self._lines.append(self._open_line[:LOG_LINE_CHARS])
            line = (text or b"").decode("utf-8", "replace")
        *whole, self._open_line = line.split("\n")
        self._open_line = self._open_line[: LOG_LINE_CHARS * 2]
        for part in whole:
            if part.strip(" ."):
                self._lines.append(part[:LOG_LINE_CHARS])
                if " buffer size = " in part:
                    self.sizes.append(part[:LOG_LINE_CHARS])
                if self.mirror:
                    self.mirror(part[:LOG_LINE_CHARS])

    def lines(self) -> tuple[str, ...]:
        """All lines kept, oldest first."""
        return tuple(self._lines)

    def tail(self, count: int = 6) -> str:
        """The last ``count`` lines in one string, for error messages."""
        return "\n".join(list(self._lines)[-count:])


ENGINE_LOG: Final = EngineLog()


_PTR, _INT, _UINT, _BOOL, _FLOAT, _SIZE = (
    ctypes.c_void_p, ctypes.c_int32, ctypes.c_uint32, ctypes.c_bool, ctypes.c_float, ctypes.c_size_t
)  # fmt: skip
_EvalCallback: Final = ctypes.CFUNCTYPE(_BOOL, _PTR, _BOOL, _PTR)
_LogCallback: Final = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, _PTR)


def _fields(*groups: tuple[str, Any]) -> list[tuple[str, Any]]:
    """Fields of a structure from names, separated by spaces, that share a type."""
    return [(name, kind) for names, kind in groups for name in names.split()]


class _ModelParams(ctypes.Structure):
    _fields_ = _fields(
        ("devices tensor_buft_overrides", _PTR),
        ("n_gpu_layers split_mode load_mode lazy_mode main_gpu", _INT),
        ("tensor_split", ctypes.POINTER(_FLOAT)),
        ("progress_callback progress_callback_user_data kv_overrides", _PTR),
        ("vocab_only check_tensors use_extra_bufts no_host no_alloc load_mtp", _BOOL),
    )


class _ContextParams(ctypes.Structure):
    _fields_ = _fields(
        ("n_ctx n_batch n_ubatch n_seq_max n_rs_seq n_outputs_max n_outputs_max_per_seq", _UINT),
        ("n_threads n_threads_batch ctx_type rope_scaling_type pooling_type attention_type flash_attn_type", _INT),
        ("rope_freq_base rope_freq_scale yarn_ext_factor yarn_attn_factor yarn_beta_fast yarn_beta_slow", _FLOAT),
        ("yarn_orig_ctx", _UINT),
        ("defrag_thold", _FLOAT),
        ("cb_eval", _EvalCallback),
        ("cb_eval_user_data", _PTR),
        ("type_k type_v", _INT),
        ("abort_callback abort_callback_data", _PTR),
        ("embeddings offload_kqv no_perf op_offload swa_full kv_unified", _BOOL),
        ("samplers", _PTR),
        ("n_samplers", _SIZE),
        ("ctx_other", _PTR),
    )


class _Batch(ctypes.Structure):
    _fields_ = _fields(
        ("n_tokens", _INT),
        ("token", ctypes.POINTER(_INT)),
        ("embd", ctypes.POINTER(_FLOAT)),
        ("pos n_seq_id", ctypes.POINTER(_INT)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(_INT))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    )


class _ChatMessage(ctypes.Structure):
    _fields_ = _fields(("role content", ctypes.c_char_p))


class _ImportanceData(ctypes.Structure):
    _fields_ = _fields(("name", ctypes.c_char_p), ("data", ctypes.POINTER(_FLOAT)), ("size", _SIZE))


class _QuantizeParams(ctypes.Structure):
    _fields_ = _fields(
        ("nthread ftype output_tensor_type token_embedding_type", _INT),
        ("allow_requantize quantize_output_tensor only_copy pure keep_split dry_run", _BOOL),
        ("imatrix", ctypes.POINTER(_ImportanceData)),
        ("kv_overrides tt_overrides prune_layers", _PTR),
        ("max_buf_size", _SIZE),
    )


_TEXT, _INTS, _FLOATS = ctypes.c_char_p, ctypes.POINTER(_INT), ctypes.POINTER(_FLOAT)
_CALLS: Final[dict[str, tuple[Any, tuple[Any, ...]]]] = {
    "llama_backend_init": (None, ()),
    "llama_log_set": (None, (_LogCallback, _PTR)),
    "llama_version": (_TEXT, ()),
    "llama_print_system_info": (_TEXT, ()),
    "llama_max_devices": (_SIZE, ()),
    "llama_model_default_params": (_ModelParams, ()),
    "llama_context_default_params": (_ContextParams, ()),
    "llama_model_quantize_default_params": (_QuantizeParams, ()),
    "llama_model_quantize": (_UINT, (_TEXT, _TEXT, ctypes.POINTER(_QuantizeParams))),
    "llama_model_load_from_file": (_PTR, (_TEXT, _ModelParams)),
    "llama_model_free": (None, (_PTR,)),
    "llama_init_from_model": (_PTR, (_PTR, _ContextParams)),
    "llama_free": (None, (_PTR,)),
    "llama_n_ctx": (_UINT, (_PTR,)),
    "llama_n_batch": (_UINT, (_PTR,)),
    "llama_decode": (_INT, (_PTR, _Batch)),
    "llama_synchronize": (None, (_PTR,)),
    "llama_get_logits": (_FLOATS, (_PTR,)),
    "llama_get_logits_ith": (_FLOATS, (_PTR, _INT)),
    "llama_get_memory": (_PTR, (_PTR,)),
    "llama_memory_clear": (None, (_PTR, _BOOL)),
    "llama_memory_seq_rm": (_BOOL, (_PTR, _INT, _INT, _INT)),
    "llama_memory_seq_cp": (None, (_PTR, _INT, _INT, _INT, _INT)),
    "llama_memory_seq_pos_max": (_INT, (_PTR, _INT)),
    "llama_model_get_vocab": (_PTR, (_PTR,)),
    "llama_vocab_n_tokens": (_INT, (_PTR,)),
    "llama_vocab_type": (_INT, (_PTR,)),
    "llama_vocab_get_text": (_TEXT, (_PTR, _INT)),
    "llama_vocab_get_add_bos": (_BOOL, (_PTR,)),
    "llama_vocab_bos": (_INT, (_PTR,)),
    "llama_vocab_is_eog": (_BOOL, (_PTR, _INT)),
    "llama_tokenize": (_INT, (_PTR, _TEXT, _INT, _INTS, _INT, _BOOL, _BOOL)),
    "llama_detokenize": (_INT, (_PTR, _INTS, _INT, _TEXT, _INT, _BOOL, _BOOL)),
    "llama_chat_apply_template": (_INT, (_TEXT, ctypes.POINTER(_ChatMessage), _SIZE, _BOOL, _TEXT, _INT)),
}
"""Type of the result and of the arguments of every function that is called."""

_DEFAULTS: Final[dict[str, tuple[tuple[str, int], ...]]] = {
    "llama_model_default_params": (
        ("n_gpu_layers load_mode", -1),
        ("main_gpu vocab_only check_tensors no_host no_alloc load_mtp", 0),
        ("split_mode lazy_mode use_extra_bufts", 1),
    ),
    "llama_context_default_params": (
        ("rope_scaling_type pooling_type attention_type flash_attn_type yarn_ext_factor defrag_thold", -1),
        ("n_rs_seq n_outputs_max ctx_type rope_freq_base yarn_orig_ctx embeddings kv_unified n_samplers", 0),
        ("n_seq_max n_outputs_max_per_seq type_k type_v offload_kqv no_perf op_offload swa_full", 1),
        ("n_threads n_threads_batch", 4),
        ("n_ctx n_ubatch", 512),
        ("n_batch", 2048),
    ),
}
"""What the library fills in: shifted fields would hold something else. Source: llama.cpp, src/llama-context.cpp and
src/llama-model.cpp."""

PACKAGES: Final = {"llama_cpp": ("llama-cpp-python", "llama"), "xllamacpp": ("xllamacpp", "xllamacpp")}
"""Modules whose packages bring the library, the one compiled for the machine first, with their names and extras."""


class Library:
    """llama.cpp's functions under their own names, with the structures, callbacks and constants that they take."""

    LLAMA_LOAD_MODE_NONE, LLAMA_LOAD_MODE_MMAP = 0, 1
    LLAMA_FLASH_ATTN_TYPE_AUTO, LLAMA_FLASH_ATTN_TYPE_DISABLED = -1, 0
    LLAMA_SPLIT_MODE_LAYER, LLAMA_SPLIT_MODE_ROW = 1, 2
    llama_batch, llama_model_imatrix_data, llama_chat_message = _Batch, _ImportanceData, _ChatMessage
    llama_token = llama_pos = llama_seq_id = _INT
    ggml_backend_sched_eval_callback = _EvalCallback
    has_devices = True
    """Whether it lists its devices, so that a placement can name them."""

    def __init__(self, path: Path, brought_by: str) -> None:
        self.path = path
        try:
            self._start([ctypes.CDLL(str(path))], brought_by)
        except OSError as error:
            raise EngineError(f"{path} cannot be loaded: {error}") from error

    def _start(self, objects: list[Any], brought_by: str) -> None:
        """Take the library's log, and initialise it."""
        self._objects, self.brought_by = objects, brought_by
        self._log = _LogCallback(ENGINE_LOG.write)  # the library keeps the address alone
        self._check_layout()
        self.hear()
        self.llama_backend_init()

    def _check_layout(self) -> None:
        for call, defaults in _DEFAULTS.items():
            params = getattr(self, call)()
            for names, expected in defaults:
                for field in names.split():
                    if (value := getattr(params, field)) != expected:
                        raise EngineError(
                            f"the llama.cpp of {brought_by} has another layout than is known here: {call} gives "
                            f"{field} = {value}, expected {expected}. Install the version that edge-harness pins: "
                            "pip install 'edge-harness[xllamacpp]'"
                        )

    def hear(self) -> None:
        """Take the library's log: another package in this process may have taken it since."""
        self.llama_log_set(self._log, None)

    def __getattr__(self, name: str) -> Any:
        if name not in _CALLS:
            raise AttributeError(name)
        result, arguments = _CALLS[name]
        function = self.function(name, result, *arguments)
        setattr(self, name, function)
        return function

    def function(self, name: str, result: Any, *arguments: Any) -> Any:
        """A function of llama.cpp or ggml, wherever it lies; EngineError where this build leaves it out."""
        for shared in (*self._objects, *self._beside):
            if (function := getattr(shared, name, None)) is not None:
                function.restype, function.argtypes = result, list(arguments)
                return function
        raise EngineError(f"the llama.cpp of {self.brought_by} has no {name}; that of llama-cpp-python has")

    @cached_property
    def _beside(self) -> list[Any]:
        """The ggml libraries beside libllama, the registry first, which finds what the base declares too."""
        stems = ("*ggml", "*ggml-base", "*ggml-cpu")
        found = [path for stem in stems for path in sorted(self.path.parent.glob(f"{stem}.*"))[:1]]
        return [ctypes.CDLL(str(path)) for path in found]


def installed() -> dict[str, Path]:
    """Where llama.cpp's library lies, by the module of its package, or ``""`` for the folder that was named."""
    folders: dict[str, Path] = {}
    if named := os.environ.get("LLAMA_CPP_LIB_PATH"):
        folders[""] = Path(named)
    for module, inner in (("llama_cpp", "lib"), ("xllamacpp", "")):
        if (spec := find_spec(module)) is not None and spec.origin:
            folders[module] = Path(spec.origin).parent / inner
    stems = ("libllama.so", "libllama.dylib", "llama.dll", "libllama.dll", "xllamacpp*.so", "xllamacpp*.pyd")
    found = {module: [p for stem in stems for p in sorted(folder.glob(stem))] for module, folder in folders.items()}
    return {module: paths[0] for module, paths in found.items() if paths}


def brought_by(module: str = "") -> str:
    """The package, with its version, or the file, that :func:`library` loads; nothing is loaded for it.

    Raises:
        MissingPackageError: There is none.
    """
    paths = installed()
    chosen = module or next(iter(paths), "xllamacpp")
    if chosen not in paths:
        raise MissingPackageError(*PACKAGES[chosen])
    return f"{PACKAGES[chosen][0]} {version(PACKAGES[chosen][0])}" if chosen else str(paths[chosen])


@cache
def library(module: str = "") -> Library:
    """The library of that module's package, loaded once; without a name the first there is.

    Raises:
        MissingPackageError: There is none.
        EngineError: It cannot be loaded, or lays out its structures in another way.
    """
    named, paths = brought_by(module), installed()
    chosen = module or next(iter(paths))
    if chosen != module:
        return library(chosen)
    if sys.platform == "win32":
        os.add_dll_directory(str(paths[chosen].parent))
    return Library(paths[chosen], named)
