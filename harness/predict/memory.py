"""Peak memory of one run: every part, split into what must be held and what the system may drop and read again."""

import csv
import math
import re
from collections.abc import Iterable
from importlib.resources import files
from typing import Final

from msgspec.structs import replace

from harness.domain.device import ComputeEngine, DeviceProfile, PoolName
from harness.domain.model import ModelShape, Weights
from harness.domain.prediction import Interval, MemoryPart, MemoryPrediction
from harness.domain.program import program_named
from harness.domain.scenario import Scenario
from harness.predict.compute_buffer import HOST, scratch_bytes, touched_compute_bytes, whole_layout
from harness.predict.kv_cache import (
    CELL_RECORD_BYTES,
    block_cache_bytes,
    cells_of,
    layer_counts,
    row_pair_bytes,
    state_bytes,
)
from harness.predict.repack import is_repacked, repacked_bytes, repacked_types
from harness.predict.weights import has_merges, has_output, header_bytes
from harness.units import MIB, format_bytes

RUNTIME_ANONYMOUS_BYTES: Final = 25 * MIB
"""Interpreter, numpy, harness and engine before a model is loaded (measured in the harness's own child process; a bare
script that imports nothing but the engine has 21.6 MiB)."""
RUNTIME_FILE_BYTES: Final = 24 * MIB
"""Code pages of the same, after the first tokens."""
_MODEL_RECORD_BYTES: Final = 2.3 * MIB
_MERGED_TOKEN_BYTES: Final = 306
"""Anonymous memory of one token of a byte-pair vocabulary: text, score, two hash tables, and a merge rule (measured
between vocabularies of 49 152 and 151 936 tokens)."""
_PLAIN_TOKEN_BYTES: Final = 157
"""The same without merge rules (measured on 262 144 tokens)."""

with (files("harness") / "data" / "driver_share.csv").open(encoding="utf-8") as _table:
    _DRIVERS: Final = list(csv.DictReader(_table))

_SPREAD_RATIO: Final = 0.03
"""Half width of the 90 % interval of the peak: scratch is not exact, and it is some 10 % of a run."""
_SPREAD_BYTES: Final = 12 * MIB
"""Its constant share: the runtime's own pages differ between builds and interpreters."""


def predict_memory(
    weights: Weights, scenario: Scenario, *, api: str | None = None, device: DeviceProfile | None = None
) -> MemoryPrediction:
    """Memory of a run at its peak.

    Parts: weights (mapped from the file, or held), repacked weights, KV cache, compute buffer, vocabulary, runtime.
    The peak is the larger of the running state and the end of loading, when the header is still there twice.

    ``api`` None asks the scenario, then the device, whose CPU decides what is repacked and whose engines the pool.

    Raises:
        ValueError: The KV type's blocks do not divide a row of keys.
    """
    api = api or (device.api(scenario.api) if device else scenario.api or "cpu")
    parts = (
        *weight_parts(weights, scenario, api, device),
        *context_parts(weights.shape, scenario, api, device),
        *process_parts(weights.shape, api, device, merges=has_merges(weights.shape) and not weights.synthetic),
    )
    total = total_bytes(parts)
    if api == "cpu":  # the end of loading: no cache and no scratch yet, but the header is mapped and parsed
        loaded = (p for p in parts if p.name not in {"kv cache", "compute buffer"})
        total = max(total, total_bytes(loaded) + load_extra_bytes(weights, scenario))
    spread = _SPREAD_RATIO * total + _SPREAD_BYTES
    return predicted(parts, total, spread, driver_share(api, device), later_parts(weights.shape, scenario))


def predicted(
    parts: tuple[MemoryPart, ...],
    total: float,
    spread_bytes: float,
    share: Interval,
    later: tuple[MemoryPart, ...] = (),
) -> MemoryPrediction:
    """Parts with the interval of their sum: ``spread_bytes`` each way, beside what the driver's ``share`` may be."""
    low = total - math.hypot(spread_bytes, share.mid - share.low)
    high = total + math.hypot(spread_bytes, share.high - share.mid)
    return MemoryPrediction(parts=parts, peak_bytes=Interval(mid=total, low=low, high=high), later=later)


def total_bytes(parts: Iterable[MemoryPart]) -> int:
    """Bytes of all parts, held or mapped."""
    return sum(p.anonymous_bytes + p.file_bytes for p in parts)


def with_draft(memory: MemoryPrediction, draft: MemoryPrediction) -> MemoryPrediction:
    """Memory of a model and its draft in one process: everything twice but the runtime and the driver."""
    extra = (replace(p, name=f"draft {p.name}") for p in draft.parts if p.name not in {"runtime", "driver"})
    return with_parts(memory, tuple(extra), _SPREAD_RATIO)


def with_parts(memory: MemoryPrediction, extra: tuple[MemoryPart, ...], spread_ratio: float) -> MemoryPrediction:
    """Memory with further parts, whose bytes are known to ``spread_ratio``: half of their 90 % interval."""
    added, peak = total_bytes(extra), memory.peak_bytes
    mid, spread = peak.mid + added, peak.high - peak.mid + spread_ratio * added
    low = peak.low + added * (1 - spread_ratio)
    return MemoryPrediction(
        parts=(*memory.parts, *extra),
        peak_bytes=Interval(mid=mid, low=low, high=mid + spread),
        later=memory.later,
    )


def weight_parts(
    weights: Weights, scenario: Scenario, api: str, device: DeviceProfile | None
) -> tuple[MemoryPart, ...]:
    """Parts that depend on the weights and not on the context."""
    if api == "cpu":
        return _cpu_weights(weights, scenario, device)
    return _gpu_weights(weights, scenario, (device.pool_for(api) if device else "ram"))


def context_parts(
    shape: ModelShape, scenario: Scenario, api: str, device: DeviceProfile | None
) -> tuple[MemoryPart, ...]:
    """Parts that depend on the context, the batch and the model's shape: cache and scratch.

    Raises:
        ValueError: The KV type's blocks do not divide a row of keys.
    """
    pool = device.pool_for(api) if device else "ram"
    kv = _kv_part(shape, scenario, pool)
    if api == "cpu":
        reserved = scratch_bytes(shape, scenario, whole_layout(shape, api))[HOST]
        reason = f"activations of a batch, as touched; the engine may reserve {format_bytes(reserved)} of address space"
        touched = touched_compute_bytes(shape, scenario)
        return kv, MemoryPart(name="compute buffer", anonymous_bytes=touched, reason=reason, pool=pool)
    scratch = scratch_bytes(shape, scenario, whole_layout(shape, api))
    reason = "scratch and logits of a full batch, allocated for good"
    logits = 4 * shape.vocab_count * cells_of(scenario).sequences
    return (
        kv,
        MemoryPart(name="compute buffer", anonymous_bytes=scratch[0], reason=reason, pool=pool),
        MemoryPart(name="host buffer", anonymous_bytes=scratch[HOST] + logits, reason="inputs of a batch, logits"),
        *cell_records(shape, scenario, pool),
    )


def driver_share(api: str, device: DeviceProfile | None) -> Interval:
    """What the driver of ``api`` takes for itself, in bytes; 0 where the process was measured with it, and on a CPU."""
    costs = device.calibration(api) if device else None
    chip = f"{device.vendor} {device.chip}".lower() if device else ""
    row = next((r for r in _DRIVERS if r["api"] == api and re.search(r["chip"], chip)), None)
    if row is None or (costs is not None and costs.process_anonymous_bytes):
        return Interval(mid=0, low=0, high=0)
    mid, low, high = (int(row[f"{name}_mib"]) * MIB for name in ("mid", "low", "high"))
    return Interval(mid=mid, low=low, high=high)


def process_parts(
    shape: ModelShape, api: str, device: DeviceProfile | None, *, merges: bool | None = None
) -> tuple[MemoryPart, ...]:
    """Parts of the process itself: driver, vocabulary (with merge rules or not; None: by its family), interpreter.

    The last is what the probe of the device measured, else what the stock CPU wheel takes.
    """
    told = {c.api: c for c in device.calibrations if c.process_anonymous_bytes} if device else {}
    measured = told.get(api) or told.get("cpu")
    merges = has_merges(shape) if merges is None else merges
    context = int(driver_share(api, device).mid)
    pool = device.pool_for(api) if device else "ram"
    driver = MemoryPart(name="driver", anonymous_bytes=context, reason=f"{api} context", pool=pool)
    runtime = MemoryPart(
        name="runtime",
        anonymous_bytes=measured.process_anonymous_bytes if measured else RUNTIME_ANONYMOUS_BYTES,
        file_bytes=measured.process_file_bytes if measured else RUNTIME_FILE_BYTES,
        reason="interpreter and engine",
    )
    return (*((driver,) if context else ()), _vocabulary(shape, merges=merges), runtime)


def _cpu_weights(weights: Weights, scenario: Scenario, device: DeviceProfile | None) -> tuple[MemoryPart, ...]:
    engine = device.engine_for("cpu") if device else None
    repacked = repacked_bytes(weights, engine.isa if engine else None) if scenario.repack else 0
    tensor_bytes = _tensor_bytes(weights)
    if scenario.mmap:
        mapped = max(weights.file_bytes - _header_bytes(weights), tensor_bytes)
        reason = f"all {format_bytes(mapped)} of tensor data, mapped from the file"
        base = MemoryPart(name="weights", anonymous_bytes=0, file_bytes=mapped, reason=reason)
    else:
        held = tensor_bytes - repacked + _repacked_table_bytes(weights, scenario, engine)
        base = MemoryPart(name="weights", anonymous_bytes=held, reason="read into memory of its own (no mmap)")
    if not repacked:
        return (base,)
    reason = f"{repacked / tensor_bytes:.0%} of the weights rewritten for this CPU's instructions at load"
    return base, MemoryPart(name="repacked weights", anonymous_bytes=repacked, reason=reason)


def _repacked_table_bytes(weights: Weights, scenario: Scenario, engine: ComputeEngine | None) -> int:
    """A token table that also is the output matrix exists twice where the output's copy was rewritten."""
    if not scenario.repack or has_output(weights):
        return 0
    types = repacked_types(engine.isa if engine else None)
    return sum(t.size_bytes for t in weights.tensors if t.name == "token_embd.weight" and is_repacked(t, types))


def _gpu_weights(weights: Weights, scenario: Scenario, pool: PoolName) -> tuple[MemoryPart, ...]:
    """All matrices in GPU buffers, which nobody can take back; the token table stays with the CPU."""
    names = {"token_embd.weight", "per_layer_token_embd.weight"}
    tables = {t.name: t.size_bytes for t in weights.tensors if t.name in names}
    table = sum(tables.values())
    copied = 0 if has_output(weights) else tables.get("token_embd.weight", 0)
    on_gpu = _tensor_bytes(weights) - table + copied
    where = "the card's memory" if pool == "vram" else "memory wired for the GPU"
    return (
        MemoryPart(name="weights", anonymous_bytes=on_gpu, reason=f"all matrices in {where}", pool=pool),
        MemoryPart(
            name="token table",
            anonymous_bytes=0 if scenario.mmap else table,
            file_bytes=table if scenario.mmap else 0,
            reason="rows are looked up by the CPU",
        ),
    )


def cell_records(shape: ModelShape, scenario: Scenario, pool: PoolName) -> tuple[MemoryPart, ...]:
    """What the host keeps of each cell, where the cache lies on a card; else the cache's part counts it."""
    if pool == "ram":
        return ()
    reason = f"{CELL_RECORD_BYTES} bytes a cell"
    return (MemoryPart(name="cell records", anonymous_bytes=_record_bytes(shape, scenario), reason=reason),)


def _record_bytes(shape: ModelShape, scenario: Scenario) -> int:
    cells = cells_of(scenario)
    return CELL_RECORD_BYTES * (cells.streams * cells.full if shape.kv_head_count else cells.sequences)


def later_parts(shape: ModelShape, scenario: Scenario) -> tuple[MemoryPart, ...]:
    """What the scenario's program adds over many turns, at most, in the host's memory.

    States of sliding and recurrent layers are saved at turns, so many a slot; the cache of tokens of other prompts is
    kept up to a limit.

    Source: llama.cpp, tools/server/server-context.cpp (checkpoints), server-task.h (prompt cache).
    """
    program, cells = program_named(scenario.program), cells_of(scenario)
    _, sliding, recurrent = layer_counts(shape)
    seen = (
        shape.sliding_window_tokens
        if program.checkpoint_cells == "window"
        else cells.sliding(shape.sliding_window_tokens)
    )
    one = recurrent * state_bytes(shape, shape.recurrent) if shape.recurrent is not None else 0
    if sliding and not cells.whole:
        one += sliding * min(seen, cells.full) * row_pair_bytes(shape, *cells.types, sliding=True)
    parts = []
    if one and program.checkpoints:
        count = program.checkpoints * cells.sequences
        reason = f"up to {count} saved states of {format_bytes(one)}; --ctx-checkpoints caps them"
        parts.append(MemoryPart(name="checkpoints", anonymous_bytes=one * count, reason=reason))
    if program.cache_ram_mib:
        reason = "caches of other prompts, up to this; --cache-ram caps them"
        parts.append(MemoryPart(name="prompt cache", anonymous_bytes=program.cache_ram_mib * MIB, reason=reason))
    return tuple(parts)


def _kv_part(shape: ModelShape, scenario: Scenario, pool: PoolName) -> MemoryPart:
    engine = cells_of(scenario)
    cells = engine.streams * engine.full if shape.kv_head_count else engine.sequences
    size = sum(block_cache_bytes(shape, engine))
    return MemoryPart(
        name="kv cache",
        anonymous_bytes=size + (_record_bytes(shape, scenario) if pool == "ram" else 0),
        reason=f"{cells} cells of {scenario.kv_type}, zeroed when the context is made",
        pool=pool,
    )


def _vocabulary(shape: ModelShape, *, merges: bool) -> MemoryPart:
    each = _MERGED_TOKEN_BYTES if merges else _PLAIN_TOKEN_BYTES
    size = int(_MODEL_RECORD_BYTES + each * shape.vocab_count)
    return MemoryPart(name="vocabulary", anonymous_bytes=size, reason=f"{shape.vocab_count} tokens, {each} bytes each")


def load_extra_bytes(weights: Weights, scenario: Scenario) -> int:
    """Bytes that exist while loading only: the parsed header, and its pages where the file is mapped."""
    return (2 if scenario.mmap else 1) * _header_bytes(weights)


def _tensor_bytes(weights: Weights) -> int:
    return sum([t.size_bytes for t in weights.tensors])  # a list: a sweep sums millions of them


def _header_bytes(weights: Weights) -> int:
    """The file without its tensors; estimated where a file has none of its own."""
    rest = weights.file_bytes - _tensor_bytes(weights)
    if rest > 0:
        return rest
    return header_bytes(weights.shape, {t.name: t.dims for t in weights.tensors})
