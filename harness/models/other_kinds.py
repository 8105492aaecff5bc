"""Names of what is no language model to load: other kinds of models, with what runs them, and services without weights.

``data/other_models.toml`` has the patterns. A name that tells a size is none of a service: fine-tunes carry the names of
the services whose answers they were trained on (Qwen3-14B-Claude-4.5-Opus-Distill).
"""

import re
from functools import lru_cache
from typing import Any, Final

from harness.core.printable import clean
from harness.core.tables import shipped_table

_TABLE: Final[dict[str, Any]] = shipped_table("data/other_models.toml")
_KINDS: Final = tuple(
    (re.compile(rf"(?<![a-z])(?:{one['names']})"), re.compile(one.get("except", r"(?!)")), one)
    for one in _TABLE["kinds"]
)
_SERVICES: Final = tuple((re.compile(one["names"]), one) for one in _TABLE["services"])
_SIZE: Final = re.compile(r"\d ?b\b|distill")
_FORMATS: Final = re.compile(r"\b(?:gguf|ggml|mlx|onnx|fp16|bf16|fp8|hf)\b")


@lru_cache(maxsize=4096)
def other_kind(name: str) -> str:
    """What a model is that is no language model, by its name, and what runs it; empty if nothing tells so."""
    plain = " ".join(re.sub(r"[-_/:]+", " ", name.lower()).split())
    for pattern, unless, kind in _KINDS:
        if pattern.search(plain) and not unless.search(plain):
            return f"{clean(name)!r} is {kind['what']}. What runs it: {kind['runs']}"
    return ""


@lru_cache(maxsize=4096)
def without_weights(name: str) -> str:
    """Whose service a name is, which nobody can load, and what of its maker can be; empty if it is none."""
    own = " ".join(re.sub(r"[-_:]+", " ", name.lower().rpartition("/")[2]).split())
    own = " ".join(_FORMATS.sub(" ", own).split())
    if _SIZE.search(own):
        return ""
    return next((_of_service(name, one) for pattern, one in _SERVICES if pattern.fullmatch(own)), "")


def _of_service(name: str, service: dict[str, Any]) -> str:
    maker, instead = service["maker"], service["instead"]
    said = f"{clean(name)!r} has no weights to run: {maker} sells it as a service alone"
    if service.get("unreleased"):
        said = f"{clean(name)!r} has no weights to run: {maker} announced it and never published them"
    return f"{said}. Weights of {maker} that can be asked about: {instead}" if instead else said
