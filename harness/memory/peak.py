"""Predict the memory of one run, part by part and pool by pool, and its peak."""

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from harness.core.device import RAM, Device, PoolName
from harness.core.model import ModelShape, Weights
from harness.core.placement import Placement
from harness.core.prediction import Interval, MemoryPart, MemoryPrediction, PartKind
from harness.core.program import program_named
from harness.core.scenario import Scenario
from harness.core.units import MIB, format_bytes
from harness.hardware.traits import first_cells
from harness.memory.compute_buffer import HOST, scratch_bytes, touched_compute_bytes, whole_layout
from harness.memory.kv_cache import (
    CELL_RECORD_BYTES,
    block_cache_bytes,
    cells_of,
    layer_counts,
    row_pair_bytes,
    state_bytes,
)
from harness.memory.placed import cards_of, fullest_card, layout_of, parts_of
from harness.memory.repack import kept_bytes, mapped_bytes, repacked_bytes
from harness.models.architecture import has
from harness.models.weights import has_merges, header_bytes

RUNTIME_ANONYMOUS_BYTES: Final = 25 * MIB
"""Interpreter, numpy, harness and engine before a model is loaded (measured in the harness's own child
process; a bare script that imports nothing but the engine has 21.6 MiB)."""
RUNTIME_FILE_BYTES: Final = 24 * MIB
"""Code pages of the same, after the first tokens."""
_NODE_BYTES: Final = 368 + 2 * 8 + 2 * (8 + 1 / 8)
"""Of one node of a graph that may be in use: its tensor, a node's and a leaf's place in the graph, two in its
table of hashes. Source: ggml.c (``ggml_tensor_overhead``, ``ggml_graph_nbytes``)."""
_MODEL_RECORD_BYTES: Final = 2.3 * MIB
_MERGED_TOKEN_BYTES: Final = 306
"""Anonymous memory of one token of a byte-pair vocabulary: text, score, two hash tables, and a merge rule
(measured between vocabularies of 49 152 and 151 936 tokens)."""
_PLAIN_TOKEN_BYTES: Final = 157
"""The same without merge rules (measured on 262 144 tokens)."""

SPREAD_RATIO: Final = 0.03
"""Half width of the 90 % interval of the peak: scratch is not exact, and it is some 10 % of a run."""
_MOST_FULL: Final = 1 - SPREAD_RATIO
"""Of a card, where batches overlap: an engine that gets no memory for it tries again without."""
_SPREAD_BYTES: Final = 12 * MIB
"""Its constant share: the runtime's own pages differ between builds and interpreters."""


def memory_of(
    weights: Weights,
    scenario: Scenario,
    device: Device | None = None,
    placement: Placement | None = None,
) -> MemoryPrediction:
    """Memory of a run, whole on one engine or split: at its peak, and what its program adds over many turns.

    Parts: weights (mapped from the file, or held), repacked weights, KV cache, compute buffer, vocabulary,
    runtime; of a GPU those of each card, and what lies with the CPU. On a CPU the peak is the larger of the
    running state and the end of loading, when the header is still there twice.

    The scenario's api counts, else the device's usual one; ``placement`` stands in for the scenario's. The
    device's CPU decides what is repacked, its engines the pool; without one all lies in RAM. Where nobody
    asked which variant of the engine runs there, the interval spans what they would rewrite.

    Raises:
        UnknownNameError: No such program.
        ValueError: The KV type's blocks do not divide a row of keys.
    """
    weights = weights.resident
    if device:
        api = device.api(scenario.api)
    else:
        api = scenario.api or "cpu"
    shape = weights.shape
    scenario = scenario.replace(placement=Placement() if api == "npu" else placement or scenario.placement)
    share = driver_share(api, device)
    others = (
        *weight_parts(weights, scenario, api, device),
        *_process_parts(weights, scenario, api, device),
    )
    parts = (*others, *_context_parts(weights, scenario, api, device))
    if (
        device is not None
        and len(scenario.placement.tensor_split) > 1
        and fullest_card(parts, device) > _MOST_FULL
    ):
        parts = (*others, *_context_parts(weights, scenario, api, device, may_overlap=False))
    total = total_bytes(parts)
    less = 0
    more = 0
    if api == "cpu":
        total = _peak_bytes(weights, scenario, parts)
        less, more = _variant_bytes(weights, scenario, device, parts)
    spread = SPREAD_RATIO * total + _SPREAD_BYTES
    low = total - math.hypot(spread, share.mid - share.low) - less
    high = total + math.hypot(spread, share.high - share.mid) + more
    peak = Interval(total, low, high)
    return MemoryPrediction(parts=parts, peak_bytes=peak, later=later_parts(shape, scenario))


def total_bytes(parts: Iterable[MemoryPart]) -> int:
    """Bytes of all parts, held or mapped."""
    return sum(part.size_bytes for part in parts)


def with_draft(memory: MemoryPrediction, draft: MemoryPrediction) -> MemoryPrediction:
    """Memory of a model and its draft in one process: everything twice but the runtime and the driver."""
    shared = {PartKind.RUNTIME, PartKind.DRIVER}
    extra = tuple(part.replace(drafts=True) for part in draft.parts if part.kind not in shared)
    return with_parts(memory, extra, SPREAD_RATIO)


def with_head(
    memory: MemoryPrediction, weights: Weights, scenario: Scenario, device: Device
) -> MemoryPrediction:
    """Memory of a model whose own further block (MTP) drafts, in a context of its own.

    Its scratch is that of one block, since what it joins first takes less. Its weights are as one of the
    blocks, where the file does not hold them.

    Source: llama.cpp, src/models/qwen35.cpp (``graph_mtp``); start-up m077 of published logs has 520.06 MiB.
    """
    api = device.api(scenario.api)
    shape = weights.shape
    block = shape.replace(layer_count=1, layer_pattern="a", kv_shared_layer_count=0, indexer_layer_count=0)
    if not has(shape.architecture, "state_beside_attention"):
        block = block.replace(recurrent=None)
    cells = cells_of(scenario)
    scratch = scratch_bytes(block, scenario, whole_layout(block, api))
    blocks = [t for t in weights.tensors if t.block >= 0]
    own = any(t.block >= shape.layer_count for t in blocks)
    sizes = {
        PartKind.WEIGHTS: 0 if own else sum(t.size_bytes for t in blocks) // shape.layer_count,
        PartKind.KV_CACHE: sum(block_cache_bytes(block, cells)),
        PartKind.COMPUTE: scratch[HOST if api == "cpu" else 0],
    }
    pool = _pool_of(api, device)
    reason = "of the head that drafts"
    parts = [MemoryPart(kind, size, reason=reason, pool=pool, drafts=True) for kind, size in sizes.items()]
    return with_parts(memory, tuple(parts), SPREAD_RATIO)


def with_parts(
    memory: MemoryPrediction, extra: tuple[MemoryPart, ...], spread_ratio: float
) -> MemoryPrediction:
    """Memory with further parts, whose bytes are known to ``spread_ratio``: half of their 90 % interval."""
    added = total_bytes(extra)
    peak = memory.peak_bytes
    interval = Interval(
        peak.mid + added,
        peak.low + added * (1 - spread_ratio),
        peak.high + added * (1 + spread_ratio),
    )
    return MemoryPrediction(parts=(*memory.parts, *extra), peak_bytes=interval, later=memory.later)


def without_parts(memory: MemoryPrediction, kinds: set[PartKind]) -> MemoryPrediction:
    """Memory less the model's parts of these kinds, on whatever card."""
    left = tuple(part for part in memory.parts if part.drafts or part.kind not in kinds)
    peak = memory.peak_bytes
    less = total_bytes(memory.parts) - total_bytes(left)
    return memory.replace(parts=left, peak_bytes=peak.through(lambda size: max(size - less, 0.0)))


def weight_parts(
    weights: Weights, scenario: Scenario, api: str, device: Device | None
) -> tuple[MemoryPart, ...]:
    """Parts that depend on the weights and not on the context."""
    if api == "cpu":
        return _cpu_weights(weights, scenario, _isa_of(device))
    placement = scenario.placement
    pool = _pool_of(api, device)
    blocks = weights.shape.layer_count
    parts = parts_of(weights, placement)
    cards = cards_of(blocks, placement)
    on_cards = [0] * _card_count(placement)
    with_cpu = weights.tensor_bytes
    for tensor in parts.gpu.tensors:
        block = min(tensor.block, blocks)  # -1, what is in no block, lies behind the last too
        on_cards[cards[block]] += tensor.size_bytes
        if tensor.role != "embedding":  # a table that is the output too is there twice
            with_cpu -= tensor.size_bytes
    if _is_whole(weights.shape, scenario):
        # Metal maps the file from its first matrix to its last: a table beside an output is in that buffer.
        if api == "metal" and weights.has_output and scenario.mmap:
            on_cards[0] += weights.table_bytes
            with_cpu -= weights.table_bytes
        place = "memory wired for the GPU"
        if device is not None and device.pool(pool).is_own:
            place = device.pool(pool).called
        reasons = [f"all matrices in {place}"]
        other = PartKind.TABLE
        why = "rows are looked up by the CPU"
    else:
        start = parts.first_gpu_block
        reasons = [f"{cards[:-1].count(card)} blocks" for card in range(len(on_cards))]
        other = PartKind.CPU_WEIGHTS
        why = "the token table"
        if parts.experts.tensors:
            why = f"the experts of {placement.cpu_moe - start} {'more' if start else 'blocks'}, {why}"
        if start:
            why = f"{start} blocks, {why}"
    held, mapped = (0, with_cpu) if scenario.mmap else (with_cpu, 0)
    return (
        *_by_card(PartKind.WEIGHTS, on_cards, reasons, pool),
        MemoryPart(other, held, file_bytes=mapped, reason=why),
    )


def _context_parts(
    weights: Weights, scenario: Scenario, api: str, device: Device | None, *, may_overlap: bool = True
) -> tuple[MemoryPart, ...]:
    """Cache and scratch; of a split the weights decide what is copied to a card when it is needed.

    An engine that has no room for inputs of several batches at once on each card does with those of one.
    """
    shape = weights.shape
    pool = _pool_of(api, device)
    cells = cells_of(scenario)
    placement = scenario.placement
    cache = block_cache_bytes(shape, cells)
    if shape.kv_head_count:
        count = cells.streams * cells.full
    else:
        count = cells.sequences
    records = CELL_RECORD_BYTES * count
    why = f"{count} cells of {scenario.kv_type}, zeroed when the context is made"
    if api == "cpu":
        reserved = scratch_bytes(shape, scenario, whole_layout(shape, api))[HOST]
        reason = f"activations of a batch, as touched; the engine may reserve {format_bytes(reserved)} of address space"
        touched = touched_compute_bytes(shape, scenario)
        nodes = program_named(scenario.program).graph_nodes
        parts = [
            MemoryPart(PartKind.KV_CACHE, sum(cache) + records, reason=why, pool=pool),
            MemoryPart(PartKind.COMPUTE, touched, reason=reason, pool=pool),
        ]
        if nodes:
            parts.append(
                MemoryPart(PartKind.GRAPH, int(_NODE_BYTES * nodes), reason=f"records of {nodes} nodes")
            )
        return tuple(parts)
    layout = layout_of(parts_of(weights, placement), placement, api)
    if not may_overlap:
        layout = layout._replace(is_pipelined=False)
    scratch = scratch_bytes(shape, scenario, layout)
    on_cards = [0] * _card_count(placement)
    with_cpu = 0
    for size, (*_, where) in zip(cache, layout.blocks, strict=True):
        if where == HOST:
            with_cpu += size
        else:
            on_cards[where] += size
    computing = [scratch.get(card, 0) for card in range(len(on_cards))]
    on_host = scratch[HOST] + 4 * shape.vocab_count * cells.sequences
    for_good = "scratch and logits of a full batch, allocated for good"
    return (
        *_by_card(PartKind.KV_CACHE, on_cards, [why], pool),
        *_by_card(PartKind.COMPUTE, computing, [for_good], pool),
        MemoryPart(PartKind.CPU_KV_CACHE, with_cpu, reason="of the CPU's blocks"),
        MemoryPart(PartKind.HOST_BUFFER, on_host, reason="inputs of a batch, logits"),
        MemoryPart(PartKind.CELL_RECORDS, records, reason=f"{CELL_RECORD_BYTES} bytes a cell"),
    )


def _process_parts(
    weights: Weights, scenario: Scenario, api: str, device: Device | None
) -> tuple[MemoryPart, ...]:
    """Driver, vocabulary, and the interpreter: as the probe of the device measured it, else as the stock wheel's."""
    anonymous = RUNTIME_ANONYMOUS_BYTES
    of_files = RUNTIME_FILE_BYTES
    for name in ("cpu", api):
        costs = device.calibration(name) if device else None
        if costs is not None and costs.process_anonymous_bytes:
            anonymous = costs.process_anonymous_bytes
            of_files = costs.process_file_bytes
    shape = weights.shape
    each = _PLAIN_TOKEN_BYTES
    if has_merges(shape) and not weights.synthetic:
        each = _MERGED_TOKEN_BYTES
    each = each * program_named(scenario.program).vocabulary_percent // 100
    vocabulary = int(_MODEL_RECORD_BYTES + each * shape.vocab_count)
    context = int(driver_share(api, device).mid)
    drivers = [context] * _card_count(scenario.placement) * bool(context)
    return (
        *_by_card(PartKind.DRIVER, drivers, [f"{api} context"], _pool_of(api, device)),
        MemoryPart(PartKind.VOCABULARY, vocabulary, reason=f"{shape.vocab_count} tokens, {each} bytes each"),
        MemoryPart(PartKind.RUNTIME, anonymous, file_bytes=of_files, reason="interpreter and engine"),
    )


def driver_share(api: str, device: Device | None) -> Interval:
    """What the driver of ``api`` takes for itself, in bytes.

    0 where the process was measured with it, and on a CPU.
    """
    if device is None:
        return driver_bytes(api, "")
    costs = device.calibration(api)
    if costs is not None and costs.process_anonymous_bytes:
        return Interval(0, 0, 0)
    return driver_bytes(api, f"{device.vendor} {device.chip}")


def driver_bytes(api: str, chip: str) -> Interval:
    """What an api's driver takes on a chip, by the start-ups that others published; 0 on a CPU."""
    sizes = first_cells("driver_share", chip.lower(), api)[1:] or ("0", "0", "0")
    return Interval(*(int(size) * MIB for size in sizes))


def later_parts(shape: ModelShape, scenario: Scenario) -> tuple[MemoryPart, ...]:
    """What the scenario's program adds over many turns, at most, in the host's memory.

    States of sliding and recurrent layers are saved at turns, so many a slot; the cache of tokens of other
    prompts is kept up to a limit.

    Source: llama.cpp, tools/server/server-context.cpp (checkpoints), server-task.h (prompt cache).
    """
    program = program_named(scenario.program)
    cells = cells_of(scenario)
    _, sliding, recurrent = layer_counts(shape)
    window = shape.sliding_window_tokens
    if program.checkpoint_cells == "window":
        seen = window
    else:
        seen = cells.sliding(window)
    one = recurrent * state_bytes(shape)
    if sliding and not cells.program.swa_full:
        one += sliding * min(seen, cells.full) * row_pair_bytes(shape, *cells.types, sliding=True)
    parts = []
    if one and program.checkpoints:
        count = program.checkpoints * cells.sequences
        reason = f"context checkpoints, up to {count} of {format_bytes(one)} (limit: --ctx-checkpoints)"
        parts.append(MemoryPart(PartKind.CHECKPOINTS, one * count, reason=reason))
    if program.cache_ram_mib:
        reason = f"cached prompts, {format_bytes(program.cache_ram_mib * MIB)} (limit: --cache-ram)"
        parts.append(MemoryPart(PartKind.PROMPT_CACHE, program.cache_ram_mib * MIB, reason=reason))
    return tuple(parts)


def _peak_bytes(weights: Weights, scenario: Scenario, parts: Sequence[MemoryPart]) -> int:
    """The larger of the running state, and the end of loading on a CPU.

    There is no cache and no scratch then, but the header has been parsed, and all of the file is mapped.
    """
    loading = total_bytes(part for part in parts if part.kind not in {PartKind.KV_CACHE, PartKind.COMPUTE})
    loading += _header_bytes(weights)
    if scenario.mmap:
        mapped = sum(part.file_bytes for part in parts if part.kind is PartKind.WEIGHTS)
        loading += _header_bytes(weights) + weights.tensor_bytes - mapped
    return max(total_bytes(parts), loading)


def _pool_of(api: str, device: Device | None) -> PoolName:
    if device:
        return device.pool_for(api)
    return RAM


def _is_whole(shape: ModelShape, scenario: Scenario) -> bool:
    return scenario.placement.whole(routed=shape.experts is not None)


def _card_count(placement: Placement) -> int:
    return len(placement.tensor_split) or 1


def _by_card(kind: PartKind, sizes: list[int], reasons: list[str], pool: PoolName) -> Iterable[MemoryPart]:
    """A part of each card, with its number where there are several."""
    for card, size in enumerate(sizes):
        reason = reasons[min(card, len(reasons) - 1)]
        yield MemoryPart(kind, size, reason=reason, pool=pool, card=card if len(sizes) > 1 else None)


def _cpu_weights(weights: Weights, scenario: Scenario, isa: Collection[str] | None) -> tuple[MemoryPart, ...]:
    """Weights of a CPU with these instruction sets: mapped or held, and what is rewritten for them."""
    repacked = 0
    mapped = held = weights.tensor_bytes
    if scenario.repack:
        repacked = repacked_bytes(weights, isa)
    if repacked:
        mapped = mapped_bytes(weights, isa)
        held = kept_bytes(weights, isa)
    if scenario.mmap:
        reason = f"{format_bytes(mapped)} of tensor data, mapped from the file"
        base = MemoryPart(PartKind.WEIGHTS, 0, file_bytes=mapped, reason=reason)
    else:
        if program_named(scenario.program).table_twice and not weights.has_output:
            held = max(held, weights.tensor_bytes + weights.table_bytes - repacked)
        base = MemoryPart(PartKind.WEIGHTS, held, reason="read into memory of its own (no mmap)")
    if not repacked:
        return (base,)
    share = repacked / weights.tensor_bytes
    reason = f"{share:.0%} of the weights rewritten for this CPU's instructions at load"
    return base, MemoryPart(PartKind.REPACKED, repacked, reason=reason)


def _isa_of(device: Device | None) -> tuple[str, ...] | None:
    engine = device.engine_for("cpu") if device else None
    if engine:
        return engine.isa
    return None


def _variant_bytes(
    weights: Weights, scenario: Scenario, device: Device | None, parts: Sequence[MemoryPart]
) -> tuple[int, int]:
    """How much less, and more, another variant of the engine takes at its peak; 0 where the engine was asked.

    Builds differ in the instruction sets that they use: AVX2 alone, all but AMX, or all that the CPU has.
    """
    isa = _isa_of(device) or ()
    asked = device.calibration("cpu") if device else None
    if (asked and asked.isa is not None) or "avx2" not in isa or not scenario.repack:
        return 0, 0
    variants = dict.fromkeys([("avx2",), tuple(one for one in isa if one != "amx"), isa])
    others = [part for part in parts if part.kind not in {PartKind.WEIGHTS, PartKind.REPACKED}]
    peaks = [
        _peak_bytes(weights, scenario, [*_cpu_weights(weights, scenario, one), *others]) for one in variants
    ]
    return peaks[-1] - min(peaks), max(peaks) - peaks[-1]


def _header_bytes(weights: Weights) -> int:
    """The file without its tensors; estimated where a file has none of its own."""
    rest = weights.file_bytes - weights.tensor_bytes
    if rest > 0:
        return rest
    return header_bytes(weights.shape, {t.name: t.dims for t in weights.tensors})
