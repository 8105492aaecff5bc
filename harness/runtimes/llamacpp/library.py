"""The shared library, loaded once, with its log caught in a bounded ring instead of printed."""

import ctypes
from collections import deque
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

from harness.errors import MissingPackageError

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
        self.callback: Any = None  # the library keeps only the address: someone must keep the object

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


@cache
def library() -> Any:
    """The low-level bindings, initialised, their log captured (MissingPackageError where they are not installed)."""
    if find_spec("llama_cpp") is None:
        raise MissingPackageError("llama-cpp-python", "llama")
    lib = import_module("llama_cpp.llama_cpp")
    ENGINE_LOG.callback = lib.llama_log_callback(ENGINE_LOG.write)
    lib.llama_log_set(ENGINE_LOG.callback, ctypes.c_void_p(0))
    lib.llama_backend_init()
    return lib
