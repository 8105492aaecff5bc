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
    import llama_cpp

    folder = Path(llama_cpp.__file__).parent / "lib"
    ggml = ctypes.CDLL(
        str(next(folder / n for n in ("libggml.so", "libggml.dylib", "ggml.dll") if (folder / n).exists()))
    )

    def call(name: str, result: Any, *arguments: Any) -> Any:
        function = getattr(ggml, f"ggml_backend_{name}")
        function.restype = result
        return function(*arguments)

    found = {}
    for index in range(call("reg_count", ctypes.c_size_t)):
        api = ctypes.c_void_p(call("reg_get", ctypes.c_void_p, ctypes.c_size_t(index)))
        places = map(ctypes.c_size_t, range(call("reg_dev_count", ctypes.c_size_t, api)))
        devices = [ctypes.c_void_p(call("reg_dev_get", ctypes.c_void_p, api, place)) for place in places]
        names = [call("dev_description", ctypes.c_char_p, device).decode(errors="replace") for device in devices]
        found[call("reg_name", ctypes.c_char_p, api).decode().lower()] = names
    return found


if __name__ == "__main__":
    json.dump({"apis": built_apis(), "build": system_info()}, sys.stdout)
