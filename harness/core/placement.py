"""Which blocks, experts and cache of a model lie with a GPU, and which with the CPU."""

import re
import shlex
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from harness.core.base import Frozen
from harness.core.tables import expect, shipped_table

_Layers = Annotated[int, Meta(ge=0, le=1 << 24)]


class Placement(Frozen):
    """A split of a model between the memory of its GPUs and that of the CPU, in llama.cpp's terms.

    It counts for an api that drives a GPU; with ``cpu`` everything lies with the CPU and none of it applies.

    Attributes:
        gpu_layers: Layers that lie with the GPU, counted from the last one down, or ``all``; the output
            counts as one (``-ngl``).
        cpu_moe: The experts of so many blocks, counted from the first, stay with the CPU (``--n-cpu-moe``).
        tensor_split: Share of the blocks on each card, in any unit (``-ts``); empty: by free memory.
        split_mode: Cards one after the other (``layer``), or each with a part of every matrix, at work at
            once (``tensor``; ``row``, which llama.cpp gives up, meets more often); ``none``: the main one.
        main_gpu: Card for what is not split.
        kv_on_gpu: Whether the cache lies with its block; else all of it lies with the CPU (``-nkvo``).
    """

    gpu_layers: _Layers | Literal["all"] = "all"
    cpu_moe: _Layers = 0
    tensor_split: tuple[Annotated[float, Meta(ge=0, le=1e12)], ...] = ()
    split_mode: Literal["none", "layer", "row", "tensor"] = "layer"
    main_gpu: Annotated[int, Meta(ge=0, lt=64)] = 0
    kv_on_gpu: bool = True

    def whole(self, *, routed: bool) -> bool:
        """Whether all of a model (with experts: ``routed``) lies with one GPU, no number of layers given."""
        one_card = self.gpu_layers == "all" and len(self.tensor_split) < 2
        return one_card and self.kv_on_gpu and not (self.cpu_moe and routed)

    def first_gpu_block(self, block_count: int) -> int:
        """The first block that lies with the GPU: blocks + 1 - layers, as the output is a layer of its own.

        Source: llama.cpp, src/llama-model.cpp (``i_gpu_start``).
        """
        if isinstance(self.gpu_layers, str):
            return 0
        return max(block_count + 1 - self.gpu_layers, 0)

    def flags(self, block_count: int) -> str:
        """The same as options of llama.cpp's programs."""
        shares = ",".join(f"{share:g}" for share in self.tensor_split)
        options = {
            f"-ngl {block_count + 1 - self.first_gpu_block(block_count)}": True,
            f"--n-cpu-moe {self.cpu_moe}": self.cpu_moe,
            f"-ts {shares}": len(self.tensor_split) > 1,
            f"-sm {self.split_mode}": self.split_mode != "layer",
            f"-mg {self.main_gpu}": self.main_gpu,
            "-nkvo": not self.kv_on_gpu,
        }
        return " ".join(words for words, is_told in options.items() if is_told)


def read_options() -> dict[str, Any]:
    """The tables ``placement`` and ``pattern_hits`` of ``data/program_options.toml``.

    Raises:
        BadDataError: An option that places nothing.
    """
    path = "data/program_options.toml"
    document = shipped_table(path)
    for option, field in document["placement"].items():
        expect(path, f"placement, {option}", field, {"patterns", *Placement.__struct_fields__})
    return document


_OPTIONS: Final = read_options()
OFFLOAD_TOKENS: Final = 32
"""Tokens of a batch from which llama.cpp copies weights to a GPU (``GGML_OP_OFFLOAD_MIN_BATCH``), and from
which a pass is read as a prompt: kernels for few tokens read weights, kernels for many compute."""
_BLOCKS_MAX: Final = 512


def placement_of(text: str) -> Placement:
    """The placement that options of llama.cpp's programs ask for, as :meth:`Placement.flags` writes them.

    Patterns (``-ot``) count where they leave experts of the first blocks, or of all, with the CPU, as
    ``-ncmoe`` does.

    Raises:
        ValueError: It is none of these options, or a value is none of its kind; says what was found and
            expected.
    """
    given: dict[str, Any] = {}
    patterns: list[str] = []
    words = shlex.shlex(text, posix=True)
    words.whitespace_split = True
    words.escape = words.commenters = ""  # a pattern's own
    for word in words:
        field = _OPTIONS["placement"].get(word)
        if field is None:
            raise ValueError(
                f"found {word!r}, expected flags of llama.cpp such as -ngl 20 --n-cpu-moe 7 -nkvo"
            )
        value = "" if field == "kv_on_gpu" else next(words, "")
        if field == "patterns":
            patterns += re.split(r"(?<==CPU),", value)  # other commas are of a pattern
        else:
            of_list = {"tensor_split": [part for part in value.split(",") if part], "kv_on_gpu": False}
            given[field] = of_list.get(field, value)
    if patterns:
        if "cpu_moe" in given:
            raise ValueError(
                f"found {text!r}, expected either -ot or --n-cpu-moe: both say where experts lie"
            )
        given["cpu_moe"] = _blocks_away(patterns)
    try:
        placement = msgspec.convert(given, Placement, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(
            f"found {text!r}, expected numbers and shares such as -ngl 20 -ts 3,1 ({error})"
        ) from error
    if placement.tensor_split and not sum(placement.tensor_split):
        raise ValueError(f"found {text!r}, expected shares such as -ts 3,1")
    return placement


def _blocks_away(overrides: list[str]) -> int:
    """Number of first blocks whose experts patterns such as ``exps=CPU`` leave with the CPU.

    Raises:
        ValueError: The patterns name something else.
    """
    try:
        hits = re.compile("|".join(f"(?:{text.removesuffix('=CPU')})" for text in overrides)).search
    except re.error as error:
        raise ValueError(f"found {overrides}, expected regular expressions ({error})") from error
    names = _OPTIONS["pattern_hits"]
    count = 0
    while count < _BLOCKS_MAX and all(hits(f"blk.{count}.{part}.weight") for part in names["experts"]):
        count += 1
    left = [f"blk.{block}.{part}.weight" for block in range(_BLOCKS_MAX) for part in names["others"]]
    left += [f"blk.{block}.{part}.weight" for block in range(count, _BLOCKS_MAX) for part in names["experts"]]
    if not count or any(map(hits, left)) or not all(text.endswith("=CPU") for text in overrides):
        raise ValueError(f"found {overrides}, expected patterns that leave the experts of the first blocks, or of all, "
                         r"with the CPU, such as -ot exps=CPU or -ot 'blk\.[0-9]\.ffn_.*_exps=CPU'")  # fmt: skip
    return count
