"""The weights of a model that nobody has downloaded: every tensor's bytes, and the size of the file.

Every weight tensor of a model, from its shape alone: names and sizes as llama.cpp's converter writes them.

``data/tensors.csv`` has a line for each, with the condition under which a model or a block has it.

Source: llama.cpp (release packed in llama-cpp-python 0.3.36), src/models/*.cpp (``load_arch_tensors``) for
names and sizes, src/llama-arch.cpp for the spelling of names. Widths that one family alone has are numbers
there: 4 streams and a rank of 64 (Gemma 3n), 32 heads of 128 of an indexer (GLM-5's config.json).
"""

import math
from functools import lru_cache
from math import prod
from typing import Final, NamedTuple

from harness.core.errors import RefusedError, UnknownNameError
from harness.core.model import ModelShape, Tensor, Weights
from harness.core.tables import Row
from harness.models.architecture import ARCHITECTURES, has
from harness.models.facts import BLOCK_WORDS, Facts, amount, block_facts, checked_rows, holds
from harness.models.ggml import row_bytes
from harness.models.quant import understood
from harness.models.quant_mix import (
    NEEDS_IMPORTANCE_MATRIX,
    QUANTS,
    Placed,
    in_llama_order,
    quant_named,
    types_in_order,
)

Table = dict[str, tuple[int, ...]]
"""Tensors before a type is chosen: sizes by llama.cpp's name, the row length first."""


def read_tensors() -> list[Row]:
    """The rows of ``data/tensors.csv``.

    Raises:
        BadDataError: A word that no model or block has.
    """
    return checked_rows("data/tensors.csv", BLOCK_WORDS, sums=("sizes",), columns={"of": ("model", "block")})


_ROWS: Final = read_tensors()


def tensors_of(shape: ModelShape) -> Table:
    """All tensors of ``shape``, token table and output first, then block by block.

    Raises:
        RefusedError: No table for this architecture, so that a size would be a guess.
    """
    if shape.architecture not in ARCHITECTURES:
        raise RefusedError(
            f"no table of tensors for architecture {shape.architecture!r}; give a GGUF file of the model instead"
        )
    table = _part("model", block_facts(shape, 0))
    blocks = dict[tuple[object, ...], Table]()
    for block in range(shape.layer_count + shape.mtp_layer_count):
        stored = block < shape.layer_count - shape.kv_shared_layer_count
        kind = shape.layer_kind(block), shape.is_moe_layer(block), stored, block < shape.layer_count
        if kind not in blocks:
            blocks[kind] = _part("block", block_facts(shape, block))
        table |= {f"blk.{block}.{name}": sizes for name, sizes in blocks[kind].items()}
    return table


def _part(part: str, facts: Facts) -> Table:
    """The tensors of one block, or of the ``model`` beside its blocks."""
    lines = [row for row in _ROWS if row["of"] == part and holds(row["when"], facts)]
    return {row["tensor"]: tuple(amount(size, facts) for size in row["sizes"].split()) for row in lines}


_ALIGNMENT_BYTES: Final = 32
_SPM_TOKEN_BYTES: Final = 23.0
"""Header bytes of one token of a SentencePiece vocabulary: length 8, text about 7, score 4, type 4."""
_BPE_TOKEN_BYTES: Final = 38.5
"""Header bytes of one token of a byte-pair vocabulary: length 8, text about 7, type 4, merge rule 8 + about
11."""
_FIXED_HEADER_BYTES: Final = 6_000
"""Other metadata: mostly the chat template."""


@lru_cache(maxsize=1 << 17)
def tensor_of(name: str, dims: tuple[int, ...], type_name: str) -> Tensor:
    """A tensor of that type, one object for all models.

    Raises:
        KeyError: The type is unknown.
        ValueError: A row is no whole number of the type's blocks.
    """
    size = prod(dims[1:]) * row_bytes(type_name, dims[0])
    return Tensor(name=name, dims=dims, type_name=type_name, size_bytes=size)


def has_merges(shape: ModelShape) -> bool:
    """Whether the vocabulary is byte-pair (with merge rules) rather than SentencePiece, judged by family and size."""
    return not (has(shape.architecture, "sentencepiece") or shape.vocab_count < 33_000)


def header_bytes(shape: ModelShape, tensors: Table) -> int:
    """Estimated bytes of a GGUF file before its tensor data.

    Each tensor has a record of 8 + name + 4 + 8 x dims + 4 + 8 bytes (exact); the vocabulary's strings are
    estimated by its kind. Within some 20 %, which is far below 0.5 % of a file.

    Source: GGUF specification, docs/gguf.md of the ggml repository.
    """
    records = sum(24 + len(name) + 8 * len(dims) for name, dims in tensors.items())
    if has_merges(shape):
        token_bytes = _BPE_TOKEN_BYTES
    else:
        token_bytes = _SPM_TOKEN_BYTES
    return int(records + token_bytes * shape.vocab_count + _FIXED_HEADER_BYTES)


def matrix_types(weights: Weights) -> set[str]:
    """Types of the matrices; norms and biases are small, and kept in F32."""
    return {t.type_name for t in weights.tensors if len(t.dims) > 1}


@lru_cache(maxsize=256)
def _plan(shape: ModelShape) -> tuple[Table, list[Placed], int]:
    """What all mixtures of one shape share: tensors, their order in llama.cpp, and the header's bytes."""
    table = tensors_of(shape)
    return table, in_llama_order(table), header_bytes(shape, table)


@lru_cache(maxsize=1024)
def weights_of(shape: ModelShape, quant: str) -> Weights:
    """All tensors of ``shape`` as llama.cpp's quantiser would write them, with the file's size.

    Tensor types and bytes of llama.cpp's own mixtures are exact (see ``quant_mix``); only the header is
    estimated. Other recipes (``UD-Q4_K_XL``, ``unsloth:Q2_K_L``) have the bits that published files have. An
    importance matrix is used where the maker of the files is known to, and where llama.cpp demands it.

    Raises:
        UnknownNameError: There is no such mixture, and no such recipe.
        RefusedError: No table of tensors for this architecture.
    """
    recipe = understood(quant, shape.architecture)
    if recipe is None:
        raise UnknownNameError("quantisation", quant, QUANTS)
    if recipe.own_output == shape.architecture:
        shape = shape.replace(tied_embeddings=False)
    mixture = quant_named(recipe.mixture)
    table, placed, header = _plan(shape)
    guided = recipe.importance_matrix or mixture in NEEDS_IMPORTANCE_MATRIX
    types = types_in_order(shape, placed, mixture, recipe.bits, importance_matrix=guided)
    tensors = tuple(tensor_of(name, dims, types[name]) for name, dims in table.items())
    padded = sum(-(-t.size_bytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES for t in tensors)
    doubt = (1.0, 1.0)
    if recipe.low:
        doubt = (min(recipe.low, 1.0), max(recipe.high, 1.0))
    return Weights(shape=shape, tensors=tensors, file_bytes=header + padded, quant=mixture, size_doubt=doubt)


class Read(NamedTuple):
    """What a token needs of a model's weights.

    Attributes:
        size_bytes: Read to decode one token: all but the token table (unless that is the output too), used
            experts.
        weight_count: Weights in these.
        prompt_weight_count: Weights that a token of a prompt goes through: without the output (only the last
            needs it).
        table_bytes: Of the token table.
        routed_count: Weights in routed experts, all of them.
        total_bytes: Of all tensors.
    """

    size_bytes: float
    weight_count: float
    prompt_weight_count: float
    table_bytes: float
    routed_count: float
    total_bytes: float = 0.0


@lru_cache(maxsize=256)
def read_of(weights: Weights) -> Read:
    """Weights that one token reads; of routed experts used / all, one sequence counted."""
    own_output = weights.has_output
    drafting_from = (
        math.inf
    )  # a part of a model keeps the numbers of its blocks, so the last ones are those that draft
    if weights.shape.mtp_layer_count and weights.tensors:
        drafting_from = max(tensor.block for tensor in weights.tensors) + 1 - weights.shape.mtp_layer_count
    size = count = output_count = table = routed = 0.0
    for tensor in weights.tensors:
        if tensor.block >= drafting_from:
            continue
        role = tensor.role
        if role == "embedding":
            table += tensor.size_bytes
            if own_output or tensor.name.startswith("per_layer"):
                continue
        if role in {"embedding", "output"}:
            output_count += tensor.element_count
        part = 1.0
        if role == "expert":
            part = weights.shape.expert_ratio
            routed += tensor.element_count
        size += part * tensor.size_bytes
        count += part * tensor.element_count
    total = float(weights.tensor_bytes)
    return Read(size, count, count - output_count, table, routed, total)
