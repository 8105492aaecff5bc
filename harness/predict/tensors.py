"""Every weight tensor of a model, from its shape alone: names and sizes as llama.cpp's converter writes them.

``data/tensors.csv`` has a line for each, with the condition under which a model or a block has it.

Source: llama.cpp (release packed in llama-cpp-python 0.3.36), src/models/*.cpp (``load_arch_tensors``) for
names and sizes, src/llama-arch.cpp for the spelling of names. Widths that one family alone has are numbers
there: 4 streams and a rank of 64 (Gemma 3n), 32 heads of 128 of an indexer (GLM-5's config.json).
"""

from typing import Final

from harness.domain.architecture import ARCHITECTURES
from harness.domain.facts import BLOCK_WORDS, Facts, amount, block_facts, checked_rows, holds
from harness.domain.model import ModelShape
from harness.errors import RefusedError

Table = dict[str, tuple[int, ...]]
"""Tensors before a type is chosen: sizes by llama.cpp's name, the row length first."""

_ROWS: Final = checked_rows(
    "data/tensors.csv", BLOCK_WORDS, sums=("sizes",), cells={"of": ("model", "block")}
)


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
