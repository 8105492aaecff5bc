"""llama.cpp's own quantizer through the bindings, and the importance matrix that the lowest types need.

The importance of an input column is the mean square of what enters the matrix there; it is collected by the
evaluation callback while the model reads a text, and handed to the quantizer in memory. Source of the method:
llama.cpp, tools/imatrix/README.md.
"""

import ctypes
from pathlib import Path
from typing import Any, Final

import numpy as np

from harness.core.arrays import Doubles
from harness.core.base import Frozen
from harness.core.errors import EngineError, RefusedError
from harness.core.ports import Emit
from harness.core.scenario import Scenario
from harness.models.ggml import BLOCKS
from harness.models.quant import MIXTURES
from harness.runtimes.llamacpp.library import ENGINE_LOG, library
from harness.runtimes.llamacpp.session import (
    DATA_OFFSET,
    NE_OFFSET,
    OP_OFFSET,
    SOURCES_OFFSET,
    LlamaSession,
    name_of,
    pointer_at,
)

QUANTS: Final = {
    name: one.file_type
    for name, one in MIXTURES.items()
    if not one.flags & {"throughout", "read_only", "unmade"}
}
"""Mixtures that can be asked for, with the library's number of each."""

_MUL_MAT: Final = 29
_CHUNK_COUNT, _CHUNK_TOKENS = 8, 512  # that are read for an importance matrix


class QuantizeJob(Frozen):
    """One file to make of a GGUF file in a mixture of :data:`QUANTS`.

    ``importance`` is the ``.npz`` file of an importance matrix, empty for none; ``pure`` gives every matrix
    the mixture's main type, embedding and output too.
    """

    source: str
    target: str
    quant: str
    importance: str = ""
    pure: bool = False


def run_quantize(job: QuantizeJob, emit: Emit) -> None:
    """Child's entry: make the file; an already quantized source is allowed, and costs quality.

    Raises:
        RefusedError: No such mixture.
        EngineError: The quantizer failed (a type that needs an importance matrix, no room on the disk ...).
    """
    quant = job.quant
    importance = {}
    if job.importance:
        with np.load(job.importance, allow_pickle=False) as arrays:
            importance = {name: np.ascontiguousarray(arrays[name], np.float32) for name in arrays.files}
    if quant not in QUANTS:
        raise RefusedError(f"no quantisation {quant!r}; one of: {', '.join(QUANTS)}")
    lib = library()
    params = lib.llama_model_quantize_default_params()
    params.ftype = QUANTS[quant]
    params.allow_requantize = True
    if job.pure:
        params.pure = True
        params.output_tensor_type = params.token_embedding_type = BLOCKS[quant].type_id
    entries: Any = None
    if importance:
        entries = (lib.llama_model_imatrix_data * (len(importance) + 1))()
        for at, (name, values) in enumerate(importance.items()):
            data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            entries[at] = lib.llama_model_imatrix_data(name.encode(), data, values.size)
        params.imatrix = ctypes.cast(entries, ctypes.POINTER(lib.llama_model_imatrix_data))
    if lib.llama_model_quantize(job.source.encode(), job.target.encode(), ctypes.byref(params)) != 0:
        Path(job.target).unlink(missing_ok=True)
        raise EngineError(
            f"llama.cpp would not make {quant} of {Path(job.source).name}: {ENGINE_LOG.tail(2)}"
        )
    emit("quantized", {"size_bytes": Path(job.target).stat().st_size})


class _ImportanceSums:
    """Sums of squares of what enters each matrix."""

    def __init__(self) -> None:
        self.sums: dict[str, Doubles] = {}
        self.rows: dict[str, int] = {}

    def hook(self, node: int, ask: bool) -> bool:
        if ctypes.c_int.from_address(node + OP_OFFSET).value != _MUL_MAT:
            return not ask
        weight = pointer_at(node + SOURCES_OFFSET)
        activation = pointer_at(node + SOURCES_OFFSET + 8)
        if not weight or not activation:
            return not ask
        name = name_of(weight).decode("utf-8", "replace")
        wanted = name.endswith(".weight") and ctypes.c_int.from_address(activation).value == 0  # F32
        if ask or not wanted:
            return wanted or not ask
        dims = (ctypes.c_int64 * 4).from_address(activation + NE_OFFSET)
        width = dims[0]
        rows = dims[1] * dims[2] * dims[3]
        data = pointer_at(activation + DATA_OFFSET)
        if not data:
            return True
        block: Any = (ctypes.c_float * (width * rows)).from_address(data)
        values = np.frombuffer(block, np.float32).reshape(rows, width)
        total = np.einsum("ij,ij->j", values, values, dtype=np.float64)
        self.sums[name] = self.sums[name] + total if name in self.sums else total
        self.rows[name] = self.rows.get(name, 0) + rows
        return True


def run_importance(arguments: dict[str, str], emit: Emit) -> None:
    """Child's entry: ``model``, ``text`` (a path) and ``target`` (``.npz``: mean squares [input_dim] by weight name).

    Reads the second half of the text: quality is scored from its beginning, and must not be scored on what
    the quantizer was fitted to. EngineError where it is too short. Nothing is repacked: the engine then knows
    the weights by their names still.
    """
    text = Path(arguments["text"]).read_text(encoding="utf-8")
    collector = _ImportanceSums()
    scenario = Scenario(context_tokens=_CHUNK_TOKENS, ubatch_tokens=_CHUNK_TOKENS, repack=False)
    path = Path(arguments["model"])
    with LlamaSession(path, scenario, batch_tokens=_CHUNK_TOKENS, eval_hook=collector.hook) as session:
        tokens = session.tokenize(text[len(text) // 2 :])
        if len(tokens) < _CHUNK_TOKENS:
            raise EngineError(f"the text has {len(tokens)} tokens, one chunk needs {_CHUNK_TOKENS}")
        count = min(len(tokens) // _CHUNK_TOKENS, _CHUNK_COUNT)
        for start in range(0, count * _CHUNK_TOKENS, _CHUNK_TOKENS):
            session.clear()
            session.decode(tokens[start : start + _CHUNK_TOKENS], position=0)
    # A tied model multiplies by its token table; the quantizer asks for it under both names.
    importance = {n: (s / collector.rows[n]).astype(np.float32) for n, s in collector.sums.items()}
    np.savez(arguments["target"], **importance)  # type: ignore[arg-type]
    emit("importance", {"matrix_count": len(importance)})
