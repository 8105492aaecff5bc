"""llama.cpp's CPU repacking: which weights it rewrites into an interleaved layout at load, in memory of its own.

With a mapped file both copies exist afterwards: the rewritten one in anonymous memory, and the original in the page
cache, resident until the system wants the pages.

Source: llama.cpp, ggml/src/ggml-cpu/repack.cpp, ``ggml_repack_get_optimal_repack_type`` and ``supports_op`` (release
packed in llama-cpp-python 0.3.36).
"""

from collections.abc import Collection
from typing import Final

from harness.domain.model import Tensor, Weights
from harness.predict.weights import has_output

_X86: Final = {"Q4_0": 8, "Q4_K": 8, "IQ4_NL": 8, "MXFP4": 8}
"""AVX2: types that have an interleaved layout, and the rows that must divide."""
_X86_AVX512: Final = {**_X86, "Q2_K": 8}
_ARM: Final = {"Q4_0": 4, "Q4_K": 8, "Q5_K": 8, "Q6_K": 8, "IQ4_NL": 4, "MXFP4": 4, "Q8_0": 4}
"""NEON with dot product (or int8 matrix multiply)."""


def repacked_types(isa: Collection[str] | None) -> dict[str, int]:
    """Types repacked on a CPU with these instruction sets, with the number that must divide a tensor's rows.

    A CPU that tells none of its sets (None) is taken for x86 with AVX2.
    """
    names = {"avx2"} if isa is None else set(isa)
    if any(name.startswith("avx512") for name in names):
        return _X86_AVX512
    if names & {"dotprod", "i8mm", "neon", "sve"}:
        return _ARM if names & {"dotprod", "i8mm", "sve"} else {}
    if names & {"avx2", "avx_vnni"}:
        return _X86
    return {}


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
