"""Formats of weights beside GGUF (FP8, NVFP4, AWQ, GPTQ, EXL3, MLX ...): what tells them, and which programs load them.

``data/formats.toml`` has a row for each. A repository's listing and its ``quantization_config`` decide; a name alone decides
where nobody asked the hub. What is said of a format is of the file as published: a GGUF file of the same model is another one.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from harness.core.base import Frozen
from harness.core.model import Weights
from harness.core.tables import shipped_table
from harness.models.quant import GROUPS, TABLES

_TABLE: Final[dict[str, Any]] = shipped_table("data/formats.toml")
_NEVER: Final = r"(?!)"
_GROUPS: Final = (
    ("tower", r"visual|vision|audio_tower|image_newline|mm_projector|multi_modal_projector|embed_vision"),
    ("output", r"lm_head|^output\."),
    ("table", r"embed_tokens|word_embeddings|tok_embeddings|\bwte\b|token_embd"),
    ("drafts", r"(?:^|\.)mtp\b|nextn|eh_proj"),
    ("experts", r"(?<!shared_)(?<!shared)experts?\b(?!_gate)"),
)
"""Groups of tensors by their names in safetensors; the first that fits counts, ``rest`` for none."""


class Loader(Frozen):
    """A program that loads a format.

    Attributes:
        apis: How it may drive a chip.
        makers: The only maker whose chips it drives; empty for any.
        command: What starts it; ``{repo}``, ``{name}``, ``{context}`` and ``{file}`` stand for what is asked.
        cards: What is added for several cards; empty if it takes them unasked.
    """

    name: str
    title: str
    apis: tuple[str, ...]
    command: str
    cards: str = ""
    makers: str = ""


class Format(Frozen):
    """A format of weights beside GGUF.

    Attributes:
        programs: What loads it, the usual one first.
        gguf: The mixture of about the same quality that a GGUF file would have.
        recipe: Row of ``quantisations.toml`` that gives its bits where no listing does; empty for the word itself.
        usual: What a quantisation is taken for that the name does not tell.
        heads: Bits of the output matrix and of the token table, where these are not those that the word tells.
        file: Name of the one file that its program is told, of formats that have one.
    """

    name: str
    programs: tuple[Loader, ...]
    gguf: str
    recipe: str = ""
    usual: str = ""
    heads: tuple[float, ...] = ()
    file: str = ""


PROGRAMS: Final = {
    name: Loader(
        name=name,
        title=row["title"],
        apis=tuple(row["apis"]),
        command=row["command"],
        cards=row["cards"],
        makers=row.get("makers", ""),
    )
    for name, row in _TABLE["programs"].items()
}


def _within(program: Loader, apis: Sequence[str] | None) -> Loader:
    """The program with those of its apis alone that drive a format."""
    return program.replace(apis=tuple(api for api in program.apis if api in apis)) if apis else program


_FORMATS: Final = tuple(
    (
        Format(
            name=row["name"],
            programs=tuple(_within(PROGRAMS[one], row.get("apis")) for one in row["programs"]),
            gguf=row["gguf"],
            recipe=row.get("recipe", ""),
            usual=row.get("usual", ""),
            heads=tuple(row.get("heads", ())),
        ),
        re.compile(row.get("word") or _NEVER, re.IGNORECASE),
        re.compile(row.get("owner", _NEVER), re.IGNORECASE),
        re.compile(row.get("part", _NEVER), re.IGNORECASE),
        frozenset(row["methods"]),
    )
    for row in _TABLE["formats"]
)
_USUAL_ONLY: Final = frozenset({"BF16"})
"""Formats that a name without an owner may also mean of a GGUF file."""


def format_named(ref: str, quant: str) -> Format | None:
    """The format that a name tells with the quantisation in it; None for GGUF, and for a name that tells none."""
    if re.search(r"gguf|ggml-org|^ollama", ref, re.IGNORECASE):
        return None
    owner, _, name = ref.rpartition("/")
    for found, word, owners, part, _ in _FORMATS:
        if found.name in _USUAL_ONLY and not owner:
            continue
        if (quant and word.fullmatch(quant)) or owners.fullmatch(owner) or part.search(name):
            return found
    return None


def format_of(config: Mapping[str, Any], files: Iterable[str]) -> Format | None:
    """The format of a repository by its config.json and the names of its files; None if they tell none that is known."""
    methods = set(_methods(config))
    names = set(files)
    if any(name.endswith(".litertlm") or name.endswith(".task") for name in names):
        methods = {"litert"}
    elif "openvino_model.bin" in names:
        methods = {"openvino"}
    if methods == {"litert"}:
        return next(found.replace(file=sorted(names)[0]) for found, *_ in _FORMATS if found.name == "LiteRT")
    return next((found for found, *_, known in _FORMATS if known & methods), None)


def word_of(config: Mapping[str, Any]) -> str:
    """What its makers would write for the quantisation of a config.json, such as ``AWQ``, ``4bit`` or ``exl3-4.0bpw``."""
    method = next(iter(_methods(config)), "none")
    packed = config.get("quantization_config") or config.get("quantization") or {}
    bits = packed.get("bits") if isinstance(packed, Mapping) else None
    told = f"{bits:g}" if isinstance(bits, int | float) and 1 <= bits <= 8 else ""
    words = {
        "mlx": f"{told or 4}bit",
        "exl3": f"exl3-{told or 4}bpw",
        "exl2": f"exl2-{told or 4}bpw",
        "gptq": f"GPTQ-Int{told or 4}",
        "pack-quantized": "W4A16",
        "int-quantized": "W8A8",
        "mxfp4": "MXFP4",
        "none": "BF16",
    }
    format_ = format_of(config, ())
    if format_ and format_.recipe:
        return format_.recipe
    return words.get(method, format_.name if format_ else "BF16")


def _methods(config: Mapping[str, Any]) -> Iterable[str]:
    """Words of a config.json for how its weights are packed, the most telling first; ``none`` if they are not."""
    if isinstance(config.get("quantization"), Mapping) and "group_size" in config["quantization"]:
        yield "mlx"
        return
    text = config.get("text_config")
    packed = config.get("quantization_config") or (
        isinstance(text, Mapping) and text.get("quantization_config")
    )
    if not isinstance(packed, Mapping):
        yield "none"
        return
    told = [packed.get("format"), packed.get("quant_algo"), packed.get("quant_method")]
    groups = packed.get("config_groups")
    if isinstance(groups, Mapping):
        told[:0] = [group.get("format") for group in groups.values() if isinstance(group, Mapping)]
    words = [word.lower() for word in told if isinstance(word, str)]
    own = [word for word in words if word not in {"compressed-tensors", "mixed-precision"}]
    yield from own or words


def shards_in(sizes: Mapping[str, int]) -> dict[str, int]:
    """Files of a repository that hold its weights, with their bytes: one set of them where it has several."""
    for pattern in _SHARDS:
        found = {name: size for name, size in sizes.items() if re.fullmatch(pattern, name)}
        if found:
            return found
    return {}


_SHARDS: Final = (
    r"(?:pytorch_)?model(?:-\d+-of-\d+)?\.safetensors",
    r"weights(?:\.\d+)?\.safetensors",
    r"output(?:-\d+-of-\d+)?\.safetensors",
    r"(?!.*(?:adapter|lora|consolidated|optimizer))[^/]*\.safetensors",
    r"consolidated(?:[.-][\w-]+)?\.safetensors",
    r"openvino_model\.bin",
    r"[^/]*\.(?:litertlm|task)",
    r"pytorch_model(?:-\d+-of-\d+)?\.bin",
)
"""Names of files with weights; the first pattern that a repository has counts (Mistral's have each model twice)."""


def bytes_by_group(tensors: Mapping[str, int]) -> dict[str, int]:
    """Bytes of each group of tensors, by their names in safetensors."""
    sums: dict[str, int] = {}
    for name, size in tensors.items():
        group = next((group for group, pattern in _GROUPS if re.search(pattern, name)), "rest")
        sums[group] = sums.get(group, 0) + size
    return sums


def by_bits(weights: Weights, bits: Sequence[float]) -> Weights:
    """Weights with just so many bits in each group of ``GROUPS``: these formats have none of llama.cpp's blocks.

    A group of 0 bits, and vectors, are left as they are.
    """
    tied = not weights.has_output
    tensors = []
    for tensor in weights.tensors:
        group = _group_of(tensor.name)
        of_group = bits[GROUPS.index("output" if tied and group == "table" else group)]
        is_matrix = len(tensor.dims) > 1 and of_group and tensor.name.endswith("weight")
        size = round(tensor.element_count * of_group / 8) if is_matrix else tensor.size_bytes
        tensors.append(tensor.replace(size_bytes=size))
    more = sum(tensor.size_bytes for tensor in tensors) - weights.tensor_bytes
    return weights.replace(tensors=tuple(tensors), file_bytes=weights.file_bytes + more)


def _group_of(name: str) -> str:
    return next((word for pattern, word in TABLES["groups"] if re.search(pattern, name)), "other")


def as_stored(weights: Weights, sums: Mapping[str, int], file_bytes: int) -> Weights:
    """Weights with the bytes of the files as published, group by group, or in proportion where headers tell none.

    ``sums`` are those of :func:`bytes_by_group`, empty where only the listing is known; ``file_bytes`` is the listing's.
    """
    own: dict[str, int] = {}
    group_of: dict[str, str] = {}
    for tensor in weights.tensors:
        group = _group_of(tensor.name)
        group = group if group in {"output", "table", "experts"} else "rest"
        group_of[tensor.name] = group
        own[group] = own.get(group, 0) + tensor.size_bytes
    told = {group: sums.get(group, 0) for group in own}
    if not sums or not told.get("rest"):
        told = dict.fromkeys(own, 0)
        whole = sum(own.values())
        told = {group: round(size * file_bytes / whole) for group, size in own.items()}
    elif "table" not in own and "output" in own and not sums.get("output"):
        told["output"] = sums.get("table", 0)
    ratio = {group: told[group] / size if told[group] else 1.0 for group, size in own.items()}
    tensors = tuple(
        tensor.replace(size_bytes=round(tensor.size_bytes * ratio[group_of[tensor.name]]))
        for tensor in weights.tensors
    )
    return weights.replace(tensors=tensors, file_bytes=file_bytes, size_doubt=(1.0, 1.0))
