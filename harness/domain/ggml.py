"""Block layouts of the ggml tensor types.

A row of a tensor is stored in blocks: ``elements`` weights in ``size_bytes`` bytes, scales included.

Source: llama.cpp, ggml/include/ggml.h (``enum ggml_type``) and ggml/src/ggml-common.h (the block structs).
"""

import csv
from importlib.resources import files
from typing import Final, NamedTuple


class Block(NamedTuple):
    """Layout of one type: its number in a GGUF file, weights in a block, bytes of a block."""

    type_id: int
    elements: int
    size_bytes: int

    @property
    def bits_per_weight(self) -> float:
        """Bits that one weight takes, scales included."""
        return 8 * self.size_bytes / self.elements


with (files("harness") / "data" / "ggml_types.csv").open(encoding="utf-8") as _table:
    ROWS: Final[list[dict[str, str]]] = list(csv.DictReader(_table))
    """The table of the types: layouts, and where and how large scales are in blocks of random weights."""

BLOCKS: Final = {row["type"]: Block(int(row["id"]), int(row["weights"]), int(row["bytes"])) for row in ROWS}

TYPE_NAMES: Final[dict[int, str]] = {block.type_id: name for name, block in BLOCKS.items()}


def row_bytes(type_name: str, element_count: int) -> int:
    """Bytes of one row of ``element_count`` weights.

    Raises:
        KeyError: The type is unknown.
        ValueError: The row is no whole number of blocks.
    """
    block = BLOCKS[type_name]
    if element_count % block.elements:
        raise ValueError(f"{type_name} stores {block.elements} weights in a block, got a row of {element_count}")
    return element_count // block.elements * block.size_bytes
