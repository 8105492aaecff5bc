"""Which blocks, experts and cache of a model lie with a GPU, and which with the CPU."""

import re
import shlex
from typing import Any, Final, Literal

import msgspec

from harness.domain.base import Frozen


class Placement(Frozen):
    """A split of a model between the memory of its GPUs and that of the CPU, in llama.cpp's terms.

    It counts for an api that drives a GPU; with ``cpu`` everything lies with the CPU and none of it applies.

    Attributes:
        gpu_layers: Layers that lie with the GPU, counted from the last one down, or ``all``; the output counts as
            one (``-ngl``).
        cpu_moe: The experts of so many blocks, counted from the first, stay with the CPU (``--n-cpu-moe``).
        tensor_split: Share of the blocks on each card, in any unit (``-ts``); empty: by free memory.
        split_mode: Cards one after the other (``layer``), or each with a part of every matrix (``row``).
        main_gpu: Card for what is not split.
        kv_on_gpu: Whether the cache lies with its block; else all of it lies with the CPU (``-nkvo``).
    """

    gpu_layers: int | Literal["all"] = "all"
    cpu_moe: int = 0
    tensor_split: tuple[float, ...] = ()
    split_mode: Literal["layer", "row"] = "layer"
    main_gpu: int = 0
    kv_on_gpu: bool = True

    def whole(self, *, routed: bool) -> bool:
        """Whether all of a model (with experts: ``routed``) lies with one GPU, no number of layers given."""
        one_card = self.gpu_layers == "all" and len(self.tensor_split) < 2
        return one_card and self.kv_on_gpu and not (self.cpu_moe and routed)

    def first_gpu_block(self, block_count: int) -> int:
        """The first block that lies with the GPU: blocks + 1 - layers, as the output is a layer of its own.

        Source: llama.cpp, src/llama-model.cpp (``i_gpu_start``).
        """
        layers = block_count + 1 if isinstance(self.gpu_layers, str) else self.gpu_layers
        return max(block_count + 1 - layers, 0) if layers >= 0 else 0

    def flags(self, block_count: int) -> str:
        """The same as options of llama.cpp's programs."""
        text = [f"-ngl {block_count + 1 - self.first_gpu_block(block_count)}"]
        if self.cpu_moe:
            text.append(f"--n-cpu-moe {self.cpu_moe}")
        if len(self.tensor_split) > 1:
            text.append("-ts " + ",".join(f"{share:g}" for share in self.tensor_split))
        text += [f"-sm {self.split_mode}"] if self.split_mode != "layer" else []
        text += [f"-mg {self.main_gpu}"] if self.main_gpu else []
        return " ".join([*text, *([] if self.kv_on_gpu else ["-nkvo"])])


_FLAGS: Final = {
    **dict.fromkeys(("-ngl", "--gpu-layers", "--n-gpu-layers"), "gpu_layers"),
    **dict.fromkeys(("-ncmoe", "--n-cpu-moe"), "cpu_moe"),
    **dict.fromkeys(("-ts", "--tensor-split"), "tensor_split"),
    **dict.fromkeys(("-sm", "--split-mode"), "split_mode"),
    **dict.fromkeys(("-mg", "--main-gpu"), "main_gpu"),
}
_LAYERS_MAX: Final = 1 << 24
_BLOCKS_MAX: Final = 512
_EXPERTS: Final = ("up", "gate", "down")
_OTHERS: Final = ("attn_q", "attn_output", "ffn_up", "ffn_down", "ffn_up_shexp", "ffn_gate_inp")
_CARDS_MAX: Final = 64


def placement_of(text: str) -> Placement:
    """The placement that options of llama.cpp's programs ask for, as :meth:`Placement.flags` writes them.

    Patterns (``-ot``) count where they leave experts of the first blocks, or of all, with the CPU, as ``-ncmoe`` does.

    Raises:
        ValueError: It is none of these options, or a value is none of its kind; says what was found and expected.
    """
    given: dict[str, Any] = {}
    patterns: list[str] = []
    words = shlex.shlex(text, posix=True)
    words.whitespace_split = True
    words.escape = words.commenters = ""  # a pattern's own
    for word in words:
        if word in {"-nkvo", "--no-kv-offload"}:
            given["kv_on_gpu"] = False
            continue
        if word in {"-ot", "--override-tensor"}:
            patterns += re.split(r"(?<==CPU),", next(words, ""))  # other commas are of a pattern
            continue
        if word not in _FLAGS:
            raise ValueError(f"found {word!r}, expected flags of llama.cpp such as -ngl 20 --n-cpu-moe 7 -nkvo")
        value = next(words, "")
        given[_FLAGS[word]] = (
            [part for part in value.split(",") if part] if word in {"-ts", "--tensor-split"} else value
        )
    if patterns:
        if "cpu_moe" in given:
            raise ValueError(f"found {text!r}, expected either -ot or --n-cpu-moe: both say where experts lie")
        given["cpu_moe"] = _blocks_away(patterns)
    try:
        placement = msgspec.convert(given, Placement, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(f"found {text!r}, expected numbers and shares such as -ngl 20 -ts 3,1 ({error})") from error
    layers = 0 if isinstance(placement.gpu_layers, str) else placement.gpu_layers
    shares = placement.tensor_split
    if not (
        0 <= layers <= _LAYERS_MAX and 0 <= placement.cpu_moe <= _LAYERS_MAX and 0 <= placement.main_gpu < _CARDS_MAX
    ):
        raise ValueError(f"found {text!r}, expected layers and experts from 0 on, and a card below {_CARDS_MAX}")
    if not all(0 <= share < float("inf") for share in shares) or (shares and not sum(shares)):
        raise ValueError(f"found {text!r}, expected shares such as -ts 3,1")
    return placement


def _blocks_away(overrides: list[str]) -> int:
    """Of how many first blocks patterns such as ``exps=CPU`` leave the experts with the CPU; ValueError for others."""
    patterns = [override.removesuffix("=CPU") for override in overrides]

    def hit(name: str) -> bool:
        return any(re.search(pattern, name) for pattern in patterns)

    try:
        experts = [all(hit(f"blk.{b}.ffn_{part}_exps.weight") for part in _EXPERTS) for b in range(_BLOCKS_MAX)]
        others = any(hit(f"blk.{b}.{part}.weight") for part in _OTHERS for b in range(_BLOCKS_MAX))
    except re.error as error:
        raise ValueError(f"found {overrides}, expected regular expressions ({error})") from error
    count = sum(experts)
    if not all(text.endswith("=CPU") for text in overrides) or others or not count or not all(experts[:count]):
        raise ValueError(f"found {overrides}, expected patterns that leave the experts of the first blocks, or of all, "
                         r"with the CPU, such as -ot exps=CPU or -ot 'blk\.[0-9]\.ffn_.*_exps=CPU'")  # fmt: skip
    return count
