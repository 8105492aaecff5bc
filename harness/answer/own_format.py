"""A model in a format of its own: the program and the api that run it on a device, and the GGUF file beside it."""

import re
from collections.abc import Iterable
from typing import Final

from harness.answer.resolve import Model
from harness.core.base import Frozen
from harness.core.device import Device
from harness.core.errors import RefusedError
from harness.core.program import program_named
from harness.core.units import GB
from harness.models.formats import Format, Loader
from harness.models.weights import weights_of

_ANYWHERE: Final = frozenset({"cpu", "metal"})
"""Apis by which a program drives a chip whoever made it."""


class OwnFormat(Frozen):
    """A format of weights that is no GGUF file, as the answer tells it.

    Attributes:
        name: FP8, AWQ, MLX, ...
        file_bytes: Of the files as published, or as its bits say.
        programs: Titles of the programs that load it, the usual one first.
        gguf_quant: Mixture that a GGUF file of about the same quality has.
        gguf_bytes: Size of that file.
    """

    name: str
    file_bytes: int
    programs: tuple[str, ...]
    gguf_quant: str
    gguf_bytes: int


def told(model: Model) -> OwnFormat | None:
    """What there is to tell of a model's format; None for a GGUF file."""
    own = model.format
    if own is None:
        return None
    return OwnFormat(
        name=own.name,
        file_bytes=model.weights.file_bytes,
        programs=tuple(one.title for one in own.programs),
        gguf_quant=own.gguf,
        gguf_bytes=weights_of(model.weights.shape, own.gguf).file_bytes,
    )


def runner_of(model: Model, device: Device, program: str, api: str) -> tuple[Loader, str]:
    """The program that runs a format on a device, and the api it does so by; the asked ones where they can.

    Raises:
        RefusedError: No program of that format drives the device, or the one that is asked for does not load it.
    """
    own = model.format
    assert own is not None
    fitting = [(one, found) for one in own.programs for found in [_api_of(one, device, api)] if found]
    if program:
        name = program_named(program).name
        known = {"vllm" if one.title == "vLLM" else one.name: one for one in own.programs}
        if name not in known:
            raise RefusedError(f"{name} loads GGUF files, and {_whose(model, own)}. {_instead(model, own)}")
        fitting = [pair for pair in fitting if pair[0] is known[name]]
    if fitting:
        return fitting[0]
    by = f" by {api}" if api else ""
    raise RefusedError(
        f"No program runs {own.name} on {device.title}{by}: {_whose(model, own)}. {_instead(model, own)}"
    )


def listed(words: Iterable[str], last: str) -> str:
    """Words as a sentence lists them, each once: ``a, b or c``."""
    *first, end = dict.fromkeys(words)
    return f"{', '.join(first)} {last} {end}" if first else end


def _whose(model: Model, own: Format) -> str:
    titles = listed([one.title for one in own.programs], "and")
    apis = listed([_CALLED.get(api, api) for one in own.programs for api in one.apis], "or")
    return f"{model.repo or model.name} is in {own.name}, which needs {titles} with {apis}"


_CALLED: Final = {"cuda": "CUDA (NVIDIA)", "rocm": "ROCm (AMD)", "metal": "Metal (Apple)", "cpu": "CPU"}


def _instead(model: Model, own: Format) -> str:
    size = weights_of(model.weights.shape, own.gguf).file_bytes / GB
    return f"A GGUF file of it would need {size:.1f} GB ({own.gguf}): ask with -q {own.gguf}"


def _api_of(program: Loader, device: Device, asked: str) -> str:
    """The api by which a program drives a device, its own GPU before its CPU; empty if it cannot."""
    there = [api for engine in device.engines for api in engine.apis]
    usual = device.api("")
    for api in dict.fromkeys((usual, *sorted(there, key=lambda one: one == "cpu"))):
        engine = device.engine_for(api)
        if engine is None or api not in program.apis or asked not in {"", api}:
            continue
        named = f"{device.vendor} {engine.name}"
        if not program.makers or api in _ANYWHERE or re.search(program.makers, named):
            return api
    return ""
