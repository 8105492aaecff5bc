"""Find the weights that llama.cpp rewrites at load for the CPU, and the bytes that this takes.

AMX lays two-dimensional matrices into tiles, and takes F16 as it is; what it has no kernels for is
interleaved like on any other CPU. With a mapped file both copies exist afterwards: the rewritten one in
anonymous memory, and the original in the page cache, resident until the system wants the pages. The mapping
is cut to what lies between the first and the last tensor that is not rewritten.

Source: llama.cpp, ggml/src/ggml-cpu/repack.cpp (``ggml_repack_get_optimal_repack_type``), amx/amx.cpp
(``supports_op``), amx/mmq.cpp (``get_row_size``), src/llama-mmap.cpp (release packed in llama-cpp-python
0.3.36).
"""

import re
from collections.abc import Collection
from functools import cache
from typing import Final

from harness.core.model import EMBEDDING_TABLE, Tensor, Weights
from harness.models.ggml import BLOCKS

_COLUMNS: Final = {"avx512": "avx512_rows", "dotprod|i8mm|sve": "dotprod_rows", "avx2|avx_vnni": "avx2_rows"}
"""By instruction sets, the first that a CPU has: what tells the rows that lie side by side there."""
_TILE_ROWS: Final = 32
_TILE_BYTES: Final = 32
"""A row of F16 is as long as whole tiles; the blocks of other types are."""


def repacked_types(isa: Collection[str] | None) -> dict[str, int]:
    """Types interleaved on a CPU with these instruction sets, with the number that must divide a tensor's rows.

    A CPU that tells none of its sets (None) is taken for x86 with AVX2.
    """
    return _rows_of(" ".join(["avx2"] if isa is None else isa))


@cache
def _rows_of(words: str) -> dict[str, int]:
    for sets, column in _COLUMNS.items():
        if re.search(sets, words):
            rows = {name: int(getattr(block, column)) for name, block in BLOCKS.items()}
            return {name: count for name, count in rows.items() if count}
    return {}


def rewritten_bytes(tensor: Tensor, isa: Collection[str] | None) -> int:
    """Bytes of a weight in the engine's own layout; 0 where it stays as it is in the file."""
    if len(tensor.dims) < 2 or not tensor.name.endswith(".weight"):
        return 0
    stacked = len(tensor.dims) > 2 and tensor.dims[2] > 1
    block = BLOCKS[tensor.type_name]
    if isa is not None and "amx" in isa and not stacked and block.amx_bytes is not None:
        row_bytes = tensor.dims[0] // block.elements * block.size_bytes
        if tensor.dims[1] % _TILE_ROWS == 0 and (block.elements > 1 or row_bytes % _TILE_BYTES == 0):
            return tensor.size_bytes + tensor.element_count // block.elements * block.amx_bytes
    rows = repacked_types(isa).get(tensor.type_name)
    if rows is None or (stacked and "_exps" not in tensor.name):
        return 0
    if tensor.dims[1] % rows == 0:
        return tensor.size_bytes
    return 0


def repacked_bytes(weights: Weights, isa: Collection[str] | None) -> int:
    """Bytes of all rewritten weights.

    A token table is looked up by row and stays as it is; where it also is the output matrix, the output's
    copy is rewritten like any other.
    """
    size = 0
    for tensor in weights.tensors:
        if tensor.role != "embedding" or (tensor.name == EMBEDDING_TABLE and not weights.has_output):
            size += rewritten_bytes(tensor, isa)
    return size


def mapped_bytes(weights: Weights, isa: Collection[str] | None) -> int:
    """Bytes of the file that stay mapped: from the first tensor that is computed from there to the last."""
    # In the order of the file; of one that nobody has, the output matrix is the first, as converters write
    # it.
    tensors = sorted(
        weights.tensors, key=lambda tensor: (tensor.offset_bytes, tensor.name != "output.weight")
    )
    stays = [_stays(tensor, isa) for tensor in tensors]
    if True not in stays:
        return 0
    first = stays.index(True)
    behind = len(stays) - stays[::-1].index(True)
    return sum(tensor.size_bytes for tensor in tensors[first:behind])


def kept_bytes(weights: Weights, isa: Collection[str] | None) -> int:
    """Bytes of the tensors that are not rewritten, and of those that are also looked up."""
    return sum(tensor.size_bytes for tensor in weights.tensors if _stays(tensor, isa))


def _stays(tensor: Tensor, isa: Collection[str] | None) -> bool:
    return tensor.role == "embedding" or not rewritten_bytes(tensor, isa)
