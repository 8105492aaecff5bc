"""Block layouts of the ggml tensor types.

A row of a tensor is stored in blocks: ``elements`` weights in ``size_bytes`` bytes, scales included.

Source: llama.cpp, ggml/include/ggml.h (``enum ggml_type``) and ggml/src/ggml-common.h (the block structs).
"""

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


BLOCKS: Final[dict[str, Block]] = {
    "F32": Block(0, 1, 4),
    "F16": Block(1, 1, 2),
    "Q4_0": Block(2, 32, 18),
    "Q4_1": Block(3, 32, 20),
    "Q5_0": Block(6, 32, 22),
    "Q5_1": Block(7, 32, 24),
    "Q8_0": Block(8, 32, 34),
    "Q8_1": Block(9, 32, 36),
    "Q2_K": Block(10, 256, 84),
    "Q3_K": Block(11, 256, 110),
    "Q4_K": Block(12, 256, 144),
    "Q5_K": Block(13, 256, 176),
    "Q6_K": Block(14, 256, 210),
    "Q8_K": Block(15, 256, 292),
    "IQ2_XXS": Block(16, 256, 66),
    "IQ2_XS": Block(17, 256, 74),
    "IQ3_XXS": Block(18, 256, 98),
    "IQ1_S": Block(19, 256, 50),
    "IQ4_NL": Block(20, 32, 18),
    "IQ3_S": Block(21, 256, 110),
    "IQ2_S": Block(22, 256, 82),
    "IQ4_XS": Block(23, 256, 136),
    "I8": Block(24, 1, 1),
    "I16": Block(25, 1, 2),
    "I32": Block(26, 1, 4),
    "I64": Block(27, 1, 8),
    "F64": Block(28, 1, 8),
    "IQ1_M": Block(29, 256, 56),
    "BF16": Block(30, 1, 2),
    "TQ1_0": Block(34, 256, 54),
    "TQ2_0": Block(35, 256, 66),
    "MXFP4": Block(39, 32, 17),
    "NVFP4": Block(40, 64, 36),
    "Q1_0": Block(41, 128, 18),
    "Q2_0": Block(42, 64, 18),
}

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
