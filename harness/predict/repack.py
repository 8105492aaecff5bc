"""llama.cpp's CPU repacking: which weights it rewrites into an interleaved layout at load, in memory of its own.

With a mapped file both copies exist afterwards: the rewritten one in anonymous memory, and the original in the page
cache, resident until the system wants the pages.

Source: llama.cpp, ggml/src/ggml-cpu/repack.cpp, ``ggml_repack_get_optimal_repack_type`` and ``supports_op`` (release
packed in llama-cpp-python 0.3.36).
"""

import re
from collections.abc import Collection
from typing import Final

from harness.domain.ggml import BLOCKS
from harness.domain.model import Tensor, Weights
from harness.predict.weights import has_output

_COLUMNS: Final = {"avx512": "avx512_rows", "dotprod|i8mm|sve": "dotprod_rows", "avx2|avx_vnni": "avx2_rows"}
"""By instruction sets, the first that a CPU has: what tells the rows that lie side by side there."""


def repacked_types(isa: Collection[str] | None) -> dict[str, int]:
    """Types repacked on a CPU with these instruction sets, with the number that must divide a tensor's rows.

    A CPU that tells none of its sets (None) is taken for x86 with AVX2.
    """
    words = " ".join(["avx2"] if isa is None else isa)
    columns = [column for sets, column in _COLUMNS.items() if re.search(sets, words)]
    return {name: rows for name, block in BLOCKS.items() for column in columns[:1] if (rows := getattr(block, column))}


def is_repacked(tensor: Tensor, types: dict[str, int]) -> bool:
    """Whether this weight is rewritten: a matrix (or a stack of experts) of such a type whose rows divide."""
    rows = types.get(tensor.type_name)
    if rows is None or len(tensor.dims) < 2 or not tensor.name.endswith(".weight"):
        return False
    stacked = len(tensor.dims) > 2 and tensor.dims[2] > 1
    if stacked and "_exps" not in tensor.name:
        return False
    return tensor.dims[1] % rows == 0


def repacked_bytes(weights: Weights, isa: Collection[str] | None) -> int:
    """Bytes of all rewritten weights.

    A token table is looked up by row and stays as it is; where it also is the output matrix, the output's copy is
    rewritten like any other.
    """
    types = repacked_types(isa)
    looked_up = {"per_layer_token_embd.weight", "token_embd.weight" if has_output(weights) else ""}
    return sum(t.size_bytes for t in weights.tensors if t.name not in looked_up and is_repacked(t, types))
