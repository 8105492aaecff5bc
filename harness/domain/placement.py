"""Which blocks, experts and cache of a model lie with a GPU, and which with the CPU."""

from typing import Literal

from harness.domain.base import Frozen


class Placement(Frozen, frozen=True, kw_only=True):
    """A split of a model between the memory of its GPUs and that of the CPU, in llama.cpp's terms.

    It counts for an api that drives a GPU; with ``cpu`` everything lies with the CPU and none of it applies.

    Attributes:
        gpu_layers: Layers that lie with the GPU, counted from the last one down; the output counts as one (``-ngl``).
            ``all``; ``auto`` lets the model find the best placement.
        cpu_moe: The experts of so many blocks, counted from the first, stay with the CPU (``--n-cpu-moe``).
        tensor_split: Share of the blocks on each card, in any unit (``-ts``); empty: by free memory.
        split_mode: Cards one after the other (``layer``), or each with a part of every matrix (``row``).
        main_gpu: Card for what is not split.
        kv_on_gpu: Whether the cache lies with its block; else all of it lies with the CPU (``-nkvo``).
    """

    gpu_layers: int | Literal["all", "auto"] = "all"
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
