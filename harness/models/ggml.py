"""Block layouts of the ggml tensor types.

A row of a tensor is stored in blocks: ``elements`` weights in ``size_bytes`` bytes, scales included.

Source: llama.cpp, ggml/include/ggml.h (``enum ggml_type``) and ggml/src/ggml-common.h (the block structs).
"""

from typing import Final

import msgspec

from harness.core.base import Frozen
from harness.core.tables import columns_of, shipped_rows


class Block(Frozen):
    """Layout of one type, and what random weights of it need (their scales are half-precision numbers).

    Attributes:
        type_id: Its number in a GGUF file.
        elements: Weights in a block.
        scale_at: Byte of the scale in the block; None where random weights have none of this form.
        spread: Standard deviation of what the scale is multiplied with, for random bits: that of integers
            uniform on their n values, sqrt((n^2 - 1) / 12), times the root mean square of the sub-scale.
        offset_at: Byte of the second scale, of the part that is subtracted or added; None without one.
        offset_ratio: Second scale over first, such that weights have mean 0.
        is_signed: Whether the scale takes the sign of the largest weight.
        avx2_rows: Rows that llama.cpp lays side by side on a CPU with these instructions; 0 where it has no
            such layout. Likewise ``avx512_rows``, and ``dotprod_rows`` with NEON's dot product or int8 matrix
            multiply.
        amx_bytes: What a block takes more where AMX lays it into tiles; None where it has no kernels for the
            type.
        fallback: The type of a matrix instead whose rows are no whole number of blocks.
    """

    type_id: int
    elements: int
    size_bytes: int
    scale_at: int | None = None
    spread: float = 0.0
    offset_at: int | None = None
    offset_ratio: float = 0.0
    is_signed: bool = False
    avx2_rows: int = 0
    avx512_rows: int = 0
    dotprod_rows: int = 0
    amx_bytes: int | None = None
    fallback: str = ""

    @property
    def bits_per_weight(self) -> float:
        """Bits that one weight takes, scales included."""
        return 8 * self.size_bytes / self.elements


def read_blocks() -> dict[str, Block]:
    """Types by name, as ``data/ggml_types.csv`` has them.

    Raises:
        BadDataError: A slip in the table, a name or a number that stands twice, a fallback that is no type.
    """
    path = "data/ggml_types.csv"
    known = {"", *(row["type"] for row in shipped_rows(path))}
    columns = {"type": str} | columns_of(Block) | {"fallback": known}
    return {
        row.pop("type"): msgspec.convert(
            {key: cell for key, cell in row.items() if cell}, Block, strict=False
        )
        for row in shipped_rows(path, columns=columns, unique=("type", "type_id"))
    }


BLOCKS: Final = read_blocks()

TYPE_NAMES: Final[dict[int, str]] = {block.type_id: name for name, block in BLOCKS.items()}


KV_TYPES: Final = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "IQ4_NL", "Q5_0", "Q5_1")
"""Types that a KV cache can have. Source: llama.cpp, common/arg.cpp (``kv_cache_types``)."""


def row_bytes(type_name: str, element_count: int) -> int:
    """Bytes of one row of ``element_count`` weights.

    Raises:
        KeyError: The type is unknown.
        ValueError: The row is no whole number of blocks.
    """
    block = BLOCKS[type_name]
    if element_count % block.elements:
        raise ValueError(
            f"{type_name} stores {block.elements} weights in a block, got a row of {element_count}"
        )
    return element_count // block.elements * block.size_bytes
