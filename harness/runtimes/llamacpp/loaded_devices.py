"""The devices that the loaded ggml has, the buffers it laid on each, and the speed of its link to one."""

import ctypes
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from harness.core.base import Frozen
from harness.core.errors import EngineError, RefusedError
from harness.core.placement import Placement
from harness.core.result import EngineBuffer
from harness.runtimes.llamacpp.builds import all_here
from harness.runtimes.llamacpp.library import Library, library, library_in, open_library

DeviceKind = Literal["cpu", "gpu", "igpu", "accel", "meta"]
_KINDS: Final[tuple[DeviceKind, ...]] = ("cpu", "gpu", "igpu", "accel", "meta")
"""By ``ggml_backend_dev_type``. Source: llama.cpp, ggml/include/ggml-backend.h."""
_SHARED: Final = re.compile(r"\b(apple|adreno|mali|xclipse|powervr|immortalis)", re.IGNORECASE)
"""GPUs whose drivers report a card, though their memory is the host's: Metal on Apple silicon, OpenCL on
phones."""
_APIS: Final = {
    "mtl": "metal",
    "metal": "metal",
    "hip": "rocm",
    "rocm": "rocm",
    "musa": "cuda",
    "blas": "cpu",
}
"""Names of ggml's backends, lower case, whose api is called otherwise here."""


class GgmlDevice(NamedTuple):
    """One device of the engine: ``gpu`` has memory of its own, ``igpu`` the host's, ``accel`` works beside the CPU.

    Bytes are 0 where the driver does not tell; ``handle`` is the address of the engine's object.
    """

    name: str
    description: str
    kind: DeviceKind
    api: str
    free_bytes: int
    total_bytes: int
    handle: int

    @property
    def is_gpu(self) -> bool:
        """Whether models can be laid with it."""
        return self.kind in {"gpu", "igpu"}

    @property
    def is_software(self) -> bool:
        """Whether a driver on the CPU plays it: Mesa's llvmpipe, SwiftShader."""
        return any(word in self.description.lower() for word in ("llvmpipe", "swiftshader"))


def devices(lib: Library | None = None) -> tuple[GgmlDevice, ...]:
    """Every device, the engine's own order.

    EngineError where the library lacks the functions that list them.
    """
    lib = lib or library()
    listed = []
    for index in range(lib.ggml_backend_dev_count()):
        handle = lib.ggml_backend_dev_get(index)
        props = lib.device_props()
        lib.ggml_backend_dev_get_props(handle, ctypes.byref(props))
        registry = lib.ggml_backend_reg_name(lib.ggml_backend_dev_backend_reg(handle)).decode().lower()
        description = (props.description or b"").decode("utf-8", "replace")
        listed.append(
            GgmlDevice(
                name=(props.name or b"").decode(),
                description=description,
                kind=kind_of(props.type, description),
                api=_APIS.get(registry, registry),
                free_bytes=int(props.memory_free),
                total_bytes=int(props.memory_total),
                handle=int(handle),
            )
        )
    return tuple(listed)


def kind_of(number: int, description: str) -> DeviceKind:
    """The kind of a device by its number and its driver's words."""
    kind = _KINDS[number] if number < len(_KINDS) else "accel"
    return "igpu" if kind == "gpu" and _SHARED.search(description) else kind


class TellJob(Frozen):
    """Which engine is asked: that of a module, as in :mod:`harness.runtimes.llamacpp.library`, or one in a folder."""

    module: str = ""
    folder: str = ""


def tell(job: TellJob, emit: Callable[[str, Any], None]) -> None:
    """Child entry: emit ``engine``, and ``device`` for each device: a driver stays in the process that loads it."""
    if job.folder:
        path = library_in(Path(job.folder))
        if path is None:
            raise EngineError(f"{job.folder}: found no library of llama.cpp")
        lib = open_library(path, str(path))
    else:
        lib = library(job.module)
    told = {"brought_by": lib.brought_by, "version": lib.llama_version().decode(), "variant": lib.variant}
    emit("engine", told | {"build": lib.llama_print_system_info().decode("utf-8", "replace").strip(" |\n")})
    for device in devices(lib):
        emit("device", device._asdict())


def apis(lib: Library | None = None) -> tuple[str, ...]:
    """Apis that a model can run on here: ``cpu``, and those with a GPU that the engine sees."""
    return ("cpu", *sorted({device.api for device in devices(lib) if device.is_gpu}))


def devices_of(api: str, lib: Library | None = None) -> tuple[GgmlDevice, ...]:
    """The GPUs that an api drives; none for ``cpu``, and RefusedError where this engine sees none.

    As in llama.cpp, those that use the host's memory are left out where a card is there.
    """
    if api in {"", "cpu"}:
        return ()
    every = [d for d in devices(lib) if d.is_gpu]
    cards = [d for d in every if d.kind == "gpu"]
    chosen = tuple(d for d in cards or every if d.api == api)
    if not chosen:
        seen = ", ".join(apis(lib))
        told = f"the installed llama.cpp sees no device of api {api!r}, only of {seen}"
        if command := pull_command(api):
            told += f"; an engine for it: {command}"
        raise RefusedError(told)
    return chosen


def pull_command(api: str) -> str:
    """The command that fetches an engine for an api; empty where no build of it is known for this machine."""
    known = any(build.api == api for build in all_here())
    return f"edge-harness engines pull --api {api}" if known else ""


def place(params: Any, api: str, placement: Placement, lib: Library) -> list[Any]:
    """Write a placement into ``llama_model_params``; what is returned must live while the model loads.

    With ``cpu`` the engine gets an empty list of devices: it then touches no GPU, whatever it was built with.

    Raises:
        RefusedError: No device of that api, or fewer cards than the split names.
    """
    chosen = devices_of(api, lib)
    if chosen and len(placement.tensor_split) > len(chosen):
        raise RefusedError(
            f"the split names {len(placement.tensor_split)} cards, the api {api} has {len(chosen)}"
        )
    if placement.main_gpu >= max(len(chosen), 1):
        raise RefusedError(f"main GPU {placement.main_gpu} of {len(chosen)} cards; the first one is 0")
    handles = (ctypes.c_void_p * (len(chosen) + 1))(*[d.handle for d in chosen], None)
    params.devices = ctypes.cast(handles, ctypes.c_void_p)
    params.n_gpu_layers = 0
    kept: list[Any] = [handles]
    if not chosen:
        return kept
    params.n_gpu_layers = -1 if placement.gpu_layers == "all" else placement.gpu_layers
    params.split_mode = getattr(lib, f"LLAMA_SPLIT_MODE_{placement.split_mode.upper()}")
    params.main_gpu = placement.main_gpu
    if placement.tensor_split:
        room = max(int(lib.llama_max_devices()), len(placement.tensor_split))
        shares = (ctypes.c_float * room)(*placement.tensor_split)
        params.tensor_split = ctypes.cast(shares, ctypes.POINTER(ctypes.c_float))
        kept.append(shares)
    if placement.cpu_moe:
        cpu = lib.ggml_backend_cpu_buffer_type()
        overrides = (lib.buffer_override * (placement.cpu_moe + 1))()
        for block in range(placement.cpu_moe):  # a pattern that no tensor has is no error
            pattern = rf"blk\.{block}\.ffn_(up|down|gate|gate_up)_(ch|)exps".encode()
            overrides[block] = lib.buffer_override(pattern, cpu)
            kept.append(pattern)
        params.tensor_buft_overrides = ctypes.cast(overrides, ctypes.c_void_p)
        kept.append(overrides)
    return kept


_BUFFER: Final = re.compile(r"(\S+)\s+(model|KV|RS|compute|output) buffer size =\s*([\d.]+) MiB")
_PARTS: Final = {
    "model": "weights",
    "KV": "kv cache",
    "RS": "kv cache",
    "compute": "compute buffer",
    "output": "output",
}


def buffers(lines: Iterable[str]) -> tuple[EngineBuffer, ...]:
    """Buffers that the engine's log tells of; sizes in steps of 0.01 MiB."""
    found = []
    for line in lines:
        if told := _BUFFER.search(line):
            device, part, mib = told.groups()
            found.append(EngineBuffer(device=device, part=_PARTS[part], size_bytes=round(float(mib) * 2**20)))
    return tuple(found)
