"""Speed from an engine's own measured costs: what a pass of any model takes on a machine that was calibrated.

One forward pass of B tokens, the first of them at depth d, through a model of L layers takes

    T(B, d) = t0 + L (l0 x nodes + B l1) + B L h a
              + sum over matrices [ bytes c(B) + rows r(B) + u(B) ]
              + attention(B, d)

    t0, l0, l1, a   fixed time of a pass, of a layer, of a token in a layer, and per hidden dim (``Calibration``)
    nodes           graph nodes of one layer over those of a plain llama layer
    c, r, u         by type: seconds per byte, per row, per product (``TypeCost``), linear between measured batches

    attention       few tokens (decode, verification): KV bytes read once / kv_read_bytes_per_s
                    + 2 x query heads x (key dim + value dim) x pairs / decode_attention_flops_per_s
                    many tokens (prefill): the same products / attention_flops_per_s
    pairs           B (d + (B + 1) / 2), each look-back cut at the window in sliding layers

The output matrix, and the last layer's feed-forward block, run only for tokens whose logits are wanted. Of n routed
experts with k used, a batch of B touches n (1 - (1 - k/n)**B) in the mean, each with B k / touched tokens.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from harness.domain.device import Calibration, DeviceProfile, TypeCost
from harness.domain.ggml import BLOCKS
from harness.domain.model import ModelShape, Tensor, Weights
from harness.domain.prediction import Interval, SpeedPrediction
from harness.domain.scenario import Scenario
from harness.predict.kv_cache import kv_read_bytes
from harness.predict.prefill import prompt_of
from harness.predict.tensors import block_of
from harness.predict.weights import has_output

PREFILL_TOKENS: Final = 32
"""From so many tokens on the engine's attention works in tiles, at its prefill speed."""

LLAMA_LAYER_NODES: Final = 20
"""Graph nodes that do work in one plain llama layer: 2 norms of 2 nodes, 7 products, 2 ropes, 2 cache writes,
attention, 2 sums, activation and product of the gate. Source: llama.cpp, src/models/llama.cpp."""

REPACK_BYTES_PER_S: Final = 0.85e9
"""Speed at which llama.cpp rewrites weights at load, one thread. Source: load times of tiny Q4_K models measured on a
two-core Zen 4 server (110 MB in 0.13 s)."""
MAP_BYTES_PER_S: Final = 8e9
"""Speed of mapping a file that is in the page cache. Source: the same machine, types that are not rewritten."""
LOAD_FIXED_S: Final = 0.05
"""Header and buffers. Source: the same machine."""
VOCABULARY_S_PER_ENTRY: Final = 1.2e-6
"""Building the tokenizer's tables, for each entry. Source: the same machine, loads of vocabularies alone with 49k to
262k entries: 1.15 to 1.3 us each (to 2.0 us on a busy machine)."""

MINIMUM_SPREAD_RATIO: Final = 0.06
"""Half-width of the 90 % interval of a decode speed even where passes repeat perfectly: model error on tiny models of
other shapes than those that were fitted."""
PREFILL_SPREAD_RATIO: Final = 0.15
UNKNOWN_TYPE_SPREAD_RATIO: Final = 0.35
"""The same for weights of types that were not calibrated, by their share of the bytes."""


class Matrix(NamedTuple):
    """One matrix product of a pass, -1 as its layer outside of blocks; the head makes the logits.

    A plain matrix has 0 experts, another one ``expert_count``, of which a token goes through ``used_count``.
    """

    tensor: Tensor
    layer: int
    is_head: bool = False
    expert_count: int = 0
    used_count: int = 0


class PassParts(NamedTuple):
    """Seconds of one pass by cause."""

    weights_s: float
    attention_s: float
    overhead_s: float

    @property
    def total_s(self) -> float:
        """All of it."""
        return self.weights_s + self.attention_s + self.overhead_s


def matrices(weights: Weights) -> Iterator[Matrix]:
    """Every matrix that a pass multiplies with; token tables that are only looked up are not among them."""
    shape = weights.shape
    tied = not has_output(weights)
    for tensor in weights.tensors:
        name = tensor.name
        if len(tensor.dims) < 2 or "conv1d" in name or name.startswith(("per_layer_token_embd", "position_embd")):
            continue
        if name == "token_embd.weight":
            if tied:
                yield Matrix(tensor, -1, is_head=True)
            continue
        layer = block_of(name)
        if "_exps" in name and shape.experts is not None:
            yield Matrix(tensor, layer, False, shape.experts.expert_count, shape.experts.used_count)
        else:
            yield Matrix(tensor, layer, is_head=name == "output.weight")


def pass_parts(
    weights: Weights,
    calibration: Calibration,
    *,
    batch_tokens: int,
    depth_tokens: int = 0,
    output_tokens: int | None = None,
    kv_type: str = "F16",
) -> PassParts:
    """Seconds of one forward pass by cause; with all logits wanted that of a verification.

    ``depth_tokens`` are in the cache already; logits are wanted of ``output_tokens``, of all of them when None.

    Raises:
        ValueError: No token, or no calibrated type at all.
    """
    if batch_tokens < 1:
        raise ValueError(f"a pass has at least one token, got {batch_tokens}")
    shape = weights.shape
    wanted = batch_tokens if output_tokens is None else min(output_tokens, batch_tokens)
    products_s = 0.0
    for matrix in matrices(weights):
        last_block = matrix.layer == shape.layer_count - 1 and ".ffn_" in matrix.tensor.name
        tokens = wanted if matrix.is_head or last_block else batch_tokens
        if tokens:
            products_s += product_seconds(matrix, calibration, tokens)
    overhead_s = calibration.token_overhead_s + shape.layer_count * (
        calibration.layer_overhead_s * _node_ratio(shape)
        + batch_tokens * (calibration.token_layer_s + shape.hidden_dim * calibration.activation_s_per_dim_layer)
    )
    return PassParts(products_s, _attention_s(shape, calibration, batch_tokens, depth_tokens, kv_type), overhead_s)


def sequences_parts(
    weights: Weights, calibration: Calibration, *, sequence_count: int, depth_tokens: int, kv_type: str = "F16"
) -> PassParts:
    """Seconds by cause of one pass over one token of each of ``sequence_count`` sequences at the same depth.

    Weights are read once for all of them, and the cache of each: products and overheads are those of a batch of so many
    tokens, attention is that of one token as often.
    """
    one = {"depth_tokens": depth_tokens, "kv_type": kv_type}
    alone = pass_parts(weights, calibration, batch_tokens=1, output_tokens=1, **one)  # type: ignore[arg-type]
    if sequence_count == 1:
        return alone
    whole = pass_parts(weights, calibration, batch_tokens=sequence_count)
    return PassParts(whole.weights_s, sequence_count * alone.attention_s, whole.overhead_s)


def prefill_seconds(
    weights: Weights,
    calibration: Calibration,
    *,
    prompt_tokens: int,
    depth_tokens: int = 0,
    ubatch_tokens: int = 512,
    kv_type: str = "F16",
    sequence_count: int = 1,
) -> float:
    """Seconds to process a prompt in physical batches; the last one gives the logits of one token.

    Several prompts of that length fill the batches one after the other, and each looks back on itself alone.
    """
    total, all_tokens = 0.0, prompt_tokens * sequence_count
    for start in range(0, all_tokens, ubatch_tokens):
        size = min(ubatch_tokens, all_tokens - start)
        wanted = sequence_count if start + size == all_tokens else 0
        parts = pass_parts(weights, calibration, batch_tokens=size, output_tokens=wanted)
        total += parts.weights_s + parts.overhead_s
    for start in range(0, prompt_tokens, ubatch_tokens):
        size = min(ubatch_tokens, prompt_tokens - start)
        total += sequence_count * _attention_s(weights.shape, calibration, size, depth_tokens + start, kv_type)
    return total


def active_bytes(weights: Weights) -> int:
    """Weight bytes read to decode one token: every matrix once, of the experts those that are used."""
    total = 0.0
    for m in matrices(weights):
        share = m.used_count / m.expert_count if m.expert_count else 1.0
        total += m.tensor.size_bytes * share
    return int(total)


def calibrated_speed(
    weights: Weights, calibration: Calibration, device: DeviceProfile, scenario: Scenario
) -> SpeedPrediction:
    """Speed of ``scenario`` on a calibrated device.

    Decode is taken at the mean depth of the generation: the depth and half of the new tokens. Intervals hold the
    calibration's own spread, at least ``MINIMUM_SPREAD_RATIO``, more for types that were not timed. Rates of several
    sequences are those of all of them together.
    """
    depth = scenario.depth_tokens + scenario.new_tokens // 2
    together = scenario.batch_count
    parts = sequences_parts(weights, calibration, sequence_count=together, depth_tokens=depth, kv_type=scenario.kv_type)
    prefill_s = prefill_seconds(
        weights,
        calibration,
        prompt_tokens=scenario.prompt_tokens,
        depth_tokens=scenario.depth_tokens,
        ubatch_tokens=scenario.ubatch_tokens,
        kv_type=scenario.kv_type,
        sequence_count=together,
    )
    after = scenario.depth_tokens + scenario.prompt_tokens
    first = pass_parts(weights, calibration, batch_tokens=1, depth_tokens=after, kv_type=scenario.kv_type)
    pool = device.pool(device.engine().pool)
    figure = pool.measured_read_bytes_per_s or pool.bandwidth_bytes_per_s
    active, kv_bytes = active_bytes(weights), kv_read_bytes(weights.shape, depth, scenario.kv_type)
    warm_s, cold_s = _load_seconds(weights, calibration, device, repack=scenario.repack)
    spread = spread_ratio(weights, calibration)
    prefill_spread = spread + PREFILL_SPREAD_RATIO
    # The engine may have caught the memory in a better moment than the probe did: the ceiling is the best of both.
    ceiling = max(figure.value, *(1 / cost.batch_seconds_per_byte[0][1] for cost in calibration.types))
    stream_s = min(active / ceiling, parts.weights_s)
    total_s = parts.total_s
    return SpeedPrediction(
        decode_tokens_per_s=_around(together / total_s, spread),
        prefill_tokens_per_s=_around(
            together * scenario.prompt_tokens / prefill_s if prefill_s else 0.0, prefill_spread
        ),
        ttft_cold_s=_around(cold_s + prefill_s + first.total_s, prefill_spread + 0.2),
        ttft_warm_s=_around(prefill_s + first.total_s, prefill_spread),
        load_cold_s=_around(cold_s, 0.5),
        load_warm_s=_around(warm_s, 0.5),
        active_bytes=active,
        kv_read_bytes=int(kv_bytes),
        roofline_tokens_per_s=together * ceiling / (active + together * kv_bytes),
        limits={
            "weights": stream_s / total_s,
            "dequantisation": (parts.weights_s - stream_s) / total_s,
            "kv cache": parts.attention_s / total_s,
            "overhead": parts.overhead_s / total_s,
        },
    )


def spread_ratio(weights: Weights, calibration: Calibration) -> float:
    """Half-width of the 90 % interval of a decode speed, as a share of the middle."""
    known = {cost.type_name for cost in calibration.types}
    total = unknown = 0
    for m in matrices(weights):
        total += m.tensor.size_bytes
        unknown += 0 if m.tensor.type_name in known else m.tensor.size_bytes
    share = unknown / total if total else 0.0
    return max(calibration.spread_ratio, MINIMUM_SPREAD_RATIO) + UNKNOWN_TYPE_SPREAD_RATIO * share


def at_batch(table: tuple[tuple[int, float], ...], batch_tokens: float) -> float:
    """Cost at a batch between, before or after the measured ones.

    Linear between neighbours; beyond the last one it grows in proportion to the batch; below the first it is the
    first one's. An empty table costs nothing.
    """
    if not table:
        return 0.0
    before = table[0]
    if batch_tokens <= before[0]:
        return before[1]
    for point in table[1:]:
        if batch_tokens <= point[0]:
            share = (batch_tokens - before[0]) / (point[0] - before[0])
            return before[1] + share * (point[1] - before[1])
        before = point
    return before[1] * batch_tokens / before[0]


def type_cost(calibration: Calibration, type_name: str) -> tuple[TypeCost, float]:
    """The cost of a type, and the factor its bytes are to be multiplied with.

    A type that was not timed costs, weight for weight, what the timed type nearest in bits per weight does.

    Raises:
        ValueError: Nothing was timed.
    """
    for cost in calibration.types:
        if cost.type_name == type_name:
            return cost, 1.0
    if not calibration.types:
        raise ValueError(f"the calibration of {calibration.api} times no type")
    bits = BLOCKS[type_name].bits_per_weight
    nearest = min(calibration.types, key=lambda c: abs(BLOCKS[c.type_name].bits_per_weight - bits))
    return nearest, max(BLOCKS[nearest.type_name].bits_per_weight / bits, 1.0)


def product_seconds(matrix: Matrix, calibration: Calibration, tokens: int) -> float:
    """Seconds of one matrix product."""
    tensor = matrix.tensor
    cost, factor = type_cost(calibration, tensor.type_name)
    share, batch = 1.0, float(tokens)
    products = 1.0
    if matrix.expert_count:
        idle = (1 - matrix.used_count / matrix.expert_count) ** tokens
        products = matrix.expert_count * (1 - idle)
        share = products / matrix.expert_count
        batch = tokens * matrix.used_count / products
    row_count = tensor.element_count // tensor.dims[0] * share
    return (
        tensor.size_bytes * share * factor * at_batch(cost.batch_seconds_per_byte, batch)
        + row_count * at_batch(cost.batch_seconds_per_row, batch)
        # Experts of one matrix share its barrier: the product costs once, however many of them there are.
        + at_batch(cost.batch_seconds_per_product, batch)
    )


def _attention_s(
    shape: ModelShape, calibration: Calibration, batch_tokens: int, depth_tokens: int, kv_type: str
) -> float:
    flops = prompt_of(shape, batch_tokens, depth_tokens + 0.5).attention_flops  # a token sees itself
    if batch_tokens >= PREFILL_TOKENS:
        return flops / calibration.attention_flops_per_s
    read_s = kv_read_bytes(shape, depth_tokens + batch_tokens, kv_type) / calibration.kv_read_bytes_per_s
    speed = calibration.decode_attention_flops_per_s
    return read_s + (flops / speed if speed else 0.0)


def _node_ratio(shape: ModelShape) -> float:
    """Graph nodes of a layer over those of a plain llama layer.

    Biases of q, k, v: 3 sums. Norms of q and k: 2 x 2 nodes. Gemma 2 and 3: 2 x 2 nodes of norms after the blocks.
    """
    extra = 3 * shape.attention_bias + 4 * shape.qk_norm
    extra += 4 * shape.architecture.startswith(("gemma2", "gemma3"))
    return (LLAMA_LAYER_NODES + extra) / LLAMA_LAYER_NODES


def _load_seconds(
    weights: Weights, calibration: Calibration, device: DeviceProfile, *, repack: bool
) -> tuple[float, float]:
    """Seconds to load from the page cache and from storage.

    warm = fixed + vocabulary x time of an entry + file / mapping speed + repacked bytes / repacking speed;
    cold = warm + file / storage speed.
    """
    types = {c.type_name for c in calibration.types if c.repacked} if repack else set()
    rewritten = sum(m.tensor.size_bytes for m in matrices(weights) if m.tensor.type_name in types)
    vocabulary_s = weights.shape.vocab_count * VOCABULARY_S_PER_ENTRY
    warm = LOAD_FIXED_S + vocabulary_s + weights.file_bytes / MAP_BYTES_PER_S + rewritten / REPACK_BYTES_PER_S
    return warm, warm + weights.file_bytes / device.storage.sequential_read_bytes_per_s.value


def _around(mid: float, spread: float) -> Interval:
    return Interval(mid=mid, low=mid / (1 + spread), high=mid * (1 + spread))
