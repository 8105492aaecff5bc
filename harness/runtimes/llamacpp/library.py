"""llama.cpp's shared library, whichever package brings it, with its log caught in a bounded ring instead of printed.

``llama-cpp-python`` compiles it for the machine; ``xllamacpp`` brings it built, inside its extension module;
a release of llama.cpp, with a library for each instruction set, lies where ``edge-harness engines pull`` put
it, or in the folder that ``LLAMA_CPP_LIB_PATH`` names, as for llama-cpp-python. Only the functions that are
called here are declared, in ``data/llama_cpp.toml``, and the defaults that the library fills in say at the
start whether it has the same structures.
"""

import ctypes
import os
import re
import sys
from collections import deque
from collections.abc import Callable
from functools import cache, cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from harness.core.errors import EngineError, MissingPackageError, installing
from harness.core.tables import expect, expect_all, shipped_table, words
from harness.runtimes.llamacpp.builds import engine_folder, pulled

LOG_LINES_KEPT: Final = 400
LOG_LINE_CHARS: Final = 500


class EngineLog:
    """Last lines of the engine's log; the library has one log for the process, so there is one of these."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=LOG_LINES_KEPT)
        self._open_line = ""
        self.mirror: Callable[[str], object] | None = None  # also gets every line
        self.sizes: list[
            str
        ] = []  # every line that tells the size of a buffer: few, and wanted after the load

    def write(self, _level: int, text: bytes | None, _user: object = None) -> None:
        """Take one message from the engine; runs in whatever thread the engine logs from."""
        *whole, rest = (self._open_line + (text or b"").decode("utf-8", "replace")).split("\n")
        self._open_line = rest[: LOG_LINE_CHARS * 2]
        for part in whole:
            line = part[:LOG_LINE_CHARS]
            if line.strip(" ."):
                self.lines.append(line)
                if " buffer size = " in line:
                    self.sizes.append(line)
                if self.mirror:
                    self.mirror(line)

    def faults(self) -> str:
        """The last lines that tell of a fault, else the last ones."""
        told = [line.strip() for line in self.lines if "error" in line.lower() or "fail" in line.lower()]
        return "; ".join(told[-3:]) or self.tail(2)

    def tail(self, count: int = 6) -> str:
        """The last ``count`` lines in one string, for error messages."""
        return "\n".join(list(self.lines)[-count:])


ENGINE_LOG: Final = EngineLog()


_EvalCallback: Final = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_bool, ctypes.c_void_p)
_LogCallback: Final = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_KINDS: Final[dict[str, Any]] = {
    "void": None,
    "ptr": ctypes.c_void_p,
    "int": ctypes.c_int32,
    "uint": ctypes.c_uint32,
    "long": ctypes.c_int64,
    "bool": ctypes.c_bool,
    "float": ctypes.c_float,
    "size": ctypes.c_size_t,
    "text": ctypes.c_char_p,
    "byte": ctypes.c_int8,
    "eval": _EvalCallback,
    "log": _LogCallback,
}


def _kind(word: str) -> Any:
    """The type that a word of the table names."""
    if word.startswith("*"):
        return ctypes.POINTER(_kind(word[1:]))
    return _KINDS[word]


def read_interface() -> dict[str, Any]:
    """``data/llama_cpp.toml``, whose types are known.

    Raises:
        BadDataError: A word that is no type, or defaults of a call or a field that there is not.
    """
    path = "data/llama_cpp.toml"
    document = shipped_table(path, into=dict[str, dict[str, Any]])
    expect_all(path, "table", ((table, table) for table in document), ("structures", "calls", "defaults"))
    known = {*_KINDS, *document["structures"]}
    fields = set[str]()
    for name, lines in document["structures"].items():
        expect_all(
            path, f"structures, {name}", ((line, line.split()[0].lstrip("*")) for line in lines), known
        )
        fields |= {field for line in lines for field in line.split()[1:]}
    for call, line in document["calls"].items():
        expect(path, f"calls, {call}", line.replace("*", ""), words(known))
    expect_all(path, "defaults", ((call, call) for call in document["defaults"]), document["calls"])
    for call, defaults in document["defaults"].items():
        expect_all(path, f"defaults, {call}", defaults, words(fields))
    return document


_INTERFACE: Final = read_interface()
for _name, _lines in _INTERFACE["structures"].items():
    _fields = [(_field, _kind(_words[0])) for _words in map(str.split, _lines) for _field in _words[1:]]
    _KINDS[_name] = type(_name, (ctypes.Structure,), {"_fields_": _fields})


NAMED: Final = ""
"""In the place of a module's name: the folder that the variable names."""
PULLED: Final = "pulled"
"""In the place of a module's name: the engine that was pulled."""
PACKAGES: Final = {"llama_cpp": ("llama-cpp-python", "llama"), "xllamacpp": ("xllamacpp", "xllamacpp")}
"""Modules whose packages bring the library, the one compiled for the machine first, with their names and
extras."""


class Library:
    """llama.cpp's functions under their own names, with the structures, callbacks and constants that they take."""

    LLAMA_LOAD_MODE_NONE, LLAMA_LOAD_MODE_MMAP = 0, 1
    LLAMA_FLASH_ATTN_TYPE_AUTO, LLAMA_FLASH_ATTN_TYPE_DISABLED = -1, 0
    LLAMA_SPLIT_MODE_LAYER, LLAMA_SPLIT_MODE_ROW = 1, 2
    llama_batch, llama_model_imatrix_data = _KINDS["Batch"], _KINDS["ImportanceData"]
    llama_chat_message = _KINDS["ChatMessage"]
    device_props, buffer_override = _KINDS["DeviceProps"], _KINDS["BufferOverride"]
    optimiser_params = _KINDS["OptimiserParams"]
    ggml_backend_sched_eval_callback = _EvalCallback
    has_devices = True
    """Whether it lists its devices, so that a placement can name them."""
    variant = ""
    """Which of its libraries for instruction sets it chose, such as ``zen4``; empty where there is but one."""

    def __init__(self, path: Path, brought_by: str) -> None:
        self.path = path
        try:
            self._start([ctypes.CDLL(str(path))], brought_by)
        except OSError as error:
            raise EngineError(f"{path} cannot be loaded: {error}") from error

    def _start(self, objects: list[Any], brought_by: str) -> None:
        """Take the library's log, and initialise it."""
        self._objects = objects
        self.brought_by = brought_by
        self._log = _LogCallback(ENGINE_LOG.write)  # the library keeps the address alone
        self._check_layout()
        self.hear()
        self._choose_variant()
        self.llama_backend_init()

    def _check_layout(self) -> None:
        for call, defaults in _INTERFACE["defaults"].items():
            params = getattr(self, call)()
            for expected, names in defaults.items():
                for field in names.split():
                    if (value := getattr(params, field)) != int(expected):
                        raise EngineError(
                            f"the llama.cpp of {self.brought_by} has another layout than is known here: {call} gives "
                            f"{field} = {value}, expected {expected}. Install the version that edge-harness pins: "
                            f"{installing('xllamacpp')}"
                        )

    def _choose_variant(self) -> None:
        """Let a build that has a library for each instruction set load the best one, and those of its other devices."""
        folder = self.path.parent
        if not any(folder.glob("*ggml-cpu-*")):
            return
        self.ggml_backend_load_all_from_path(str(folder).encode())
        loaded = re.compile(r"loaded CPU backend from .*ggml-cpu-(.+)\.\w+$")
        for line in ENGINE_LOG.lines:
            if told := loaded.search(line):
                self.variant = told[1]
        if not self.variant:
            raise EngineError(
                f"{folder}: none of its libraries for instruction sets runs here: {ENGINE_LOG.tail(2)}"
            )

    def hear(self) -> None:
        """Take the library's log: another package in this process may have taken it since."""
        self.llama_log_set(self._log, None)

    def __getattr__(self, name: str) -> Any:
        if name not in _INTERFACE["calls"]:
            raise AttributeError(name)
        function = self.symbol(name)
        function.restype, *arguments = map(_kind, _INTERFACE["calls"][name].split())
        function.argtypes = arguments
        setattr(self, name, function)
        return function

    def symbol(self, name: str) -> Any:
        """A function of llama.cpp or ggml, wherever it lies; EngineError where this build leaves it out."""
        for shared in (*self._objects, *self._beside):
            if (function := getattr(shared, name, None)) is not None:
                return function
        raise EngineError(f"the llama.cpp of {self.brought_by} has no {name}; that of llama-cpp-python has")

    @cached_property
    def _beside(self) -> list[Any]:
        """The ggml libraries beside libllama, the registry first, which finds what the base declares too."""
        stems = ("*ggml", "*ggml-base", "*ggml-cpu")
        folder = self.path.parent
        return [ctypes.CDLL(str(path)) for stem in stems for path in sorted(folder.glob(f"{stem}.*"))[:1]]


_STEMS: Final = (
    "libllama.so",
    "libllama.*.so",
    "libllama.dylib",
    "llama.dll",
    "xllamacpp*.so",
    "xllamacpp*.pyd",
)


def library_in(folder: Path) -> Path | None:
    """llama.cpp's library in a folder, whatever version is part of its name; None where there is none."""
    for stem in _STEMS:
        if paths := sorted(folder.glob(stem)):
            return paths[0]
    return None


def installed() -> dict[str, Path]:
    """Find each llama.cpp library here, the best one first.

    The keys are the modules of the packages that brought them, or :data:`NAMED` or :data:`PULLED`.
    """
    folders: dict[str, Path] = {}
    if named := os.environ.get("LLAMA_CPP_LIB_PATH"):
        folders[NAMED] = Path(named)
    if pulled() is not None:
        folders[PULLED] = engine_folder()
    for module, inner in (("llama_cpp", "lib"), ("xllamacpp", "")):
        spec = find_spec(module)
        if spec is not None and spec.origin:
            folders[module] = Path(spec.origin).parent / inner
    found = {}
    for module, folder in folders.items():
        if path := library_in(folder):
            found[module] = path
    return found


def brought_by(module: str = "") -> str:
    """Name the package, the build or the file that :func:`library` would load, without loading it.

    Raises:
        MissingPackageError: There is none.
    """
    paths = installed()
    chosen = module or next(iter(paths), "xllamacpp")
    if chosen not in paths:
        raise MissingPackageError(*PACKAGES[chosen])
    if chosen in PACKAGES:
        return f"{PACKAGES[chosen][0]} {version(PACKAGES[chosen][0])}"
    build = pulled(paths[chosen].parent)
    return build.title if build else str(paths[chosen])


@cache
def library(module: str = "") -> Library:
    """The library of that module's package, loaded once; without a name the first there is.

    Raises:
        MissingPackageError: There is none.
        EngineError: It cannot be loaded, or lays out its structures in another way.
    """
    named = brought_by(module)
    chosen, path = next((name, path) for name, path in installed().items() if module in {"", name})
    return open_library(path, named) if chosen == module else library(chosen)


def open_library(path: Path, named: str) -> Library:
    """Open the library of a file; the errors are those of :func:`library`."""
    if sys.platform == "win32":
        os.add_dll_directory(str(path.parent))
    return Library(path, named)
