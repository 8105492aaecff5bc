"""Apis that the installed engine was built with, and the devices it finds for each; as a program it prints them.

Source: ggml, include/ggml-backend.h (the registry of backends and of devices).
"""

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

from harness.runtimes.llamacpp.library import library, system_info


def built_apis() -> dict[str, list[str]]:
    """Names of devices by api (``cpu``, ``cuda``, ``metal``, ``vulkan`` ...), as the engine's own registry has them.

    Raises:
        MissingPackageError: llama-cpp-python is not installed.
    """
    library()
    ggml = _registry()
    for name, result, arguments in (
        ("reg_count", ctypes.c_size_t, []),
        ("reg_get", ctypes.c_void_p, [ctypes.c_size_t]),
        ("reg_name", ctypes.c_char_p, [ctypes.c_void_p]),
        ("reg_dev_count", ctypes.c_size_t, [ctypes.c_void_p]),
        ("reg_dev_get", ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t]),
        ("dev_description", ctypes.c_char_p, [ctypes.c_void_p]),
    ):
        function = getattr(ggml, f"ggml_backend_{name}")
        function.restype, function.argtypes = result, arguments
    found = {}
    for index in range(ggml.ggml_backend_reg_count()):
        api = ggml.ggml_backend_reg_get(index)
        count = ggml.ggml_backend_reg_dev_count(api)
        devices = [ggml.ggml_backend_dev_description(ggml.ggml_backend_reg_dev_get(api, n)) for n in range(count)]
        found[ggml.ggml_backend_reg_name(api).decode().lower()] = [d.decode(errors="replace") for d in devices]
    return found


def _registry() -> Any:
    """The engine's library that holds the registry; it is loaded already, this only finds it."""
    import llama_cpp

    folder = Path(llama_cpp.__file__).parent / "lib"
    for name in ("libggml.so", "libggml.dylib", "ggml.dll"):
        if (folder / name).exists():
            return ctypes.CDLL(str(folder / name))
    raise OSError(f"no libggml in {folder}")


if __name__ == "__main__":
    json.dump({"apis": built_apis(), "build": system_info()}, sys.stdout)
