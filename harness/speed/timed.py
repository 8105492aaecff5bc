"""Costs of an engine by its own timings: what a pass of any model takes on a machine that was calibrated.

One physical batch of B tokens, the first of them at depth d, through a model of L layers takes

    T(B, d) = t0 + L (l0 x nodes + B l1)
              + sum over matrices [ bytes c(B) + rows r(B) + u(B) ]
              + attention(B, d)

    t0, l0, l1      fixed time of a pass, of a layer, of a token in a layer (``Calibration``)
    nodes           graph nodes of one layer over those of a plain llama layer
    c, r, u         by type: seconds per byte, per row, per product (``TypeCost``), linear between measured batches;
                    of c a share s is that of the caches: c (1 - s (1 - q)), q the ratio of the two costs of a
                    byte, s by the bytes that the pass reads (``cached_shares``)

    attention       few tokens (decode, verification): KV bytes read once / kv_read_bytes_per_s
                    + query heads x pairs x attention_pair_s: heads of 64 to 256 take the same time, which
                    goes into the softmax and calls; wider ones (latent attention) in proportion many tokens
                    (prefill): 2 x query heads x (key dim + value dim) x pairs / attention_flops_per_s
    pairs           B (d + (B + 1) / 2), each look-back cut at the window in sliding layers

The output matrix, and the last layer's feed-forward block, run only for tokens whose logits are wanted. Of n
routed experts with k used, a batch of B touches n (1 - (1 - k/n)**B) in the mean, each with B k / touched
tokens. Several sequences fill the batches one after the other, and each looks back on itself alone.
"""

import math
from bisect import bisect
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from harness.core.device import Calibration, Device, TypeCost
from harness.core.model import EMBEDDING_TABLE, ModelShape, Tensor, Weights
from harness.core.placement import OFFLOAD_TOKENS
from harness.core.prediction import Basis, Evidence
from harness.memory.kv_cache import kv_read_bytes
from harness.models.architecture import has
from harness.models.ggml import BLOCKS
from harness.speed.decode import Terms
from harness.speed.passes import Part, Pass
from harness.speed.prefill import attention_width, prompt_of

LLAMA_LAYER_NODES: Final = 20
"""Graph nodes that do work in one plain llama layer: 2 norms of 2 nodes, 7 products, 2 ropes, 2 cache writes,
attention, 2 sums, activation and product of the gate. Source: llama.cpp, src/models/llama.cpp."""

_WIDE: Final = 512
"""Entries of a key and a value, up to which a pair of them takes the same time. Source: llama.cpp's flash
attention on two cores (Zen 3), 2,048 positions: 18 to 24 ns a pair with heads of 64, 23 to 25 with 128, 33
with 256."""

MINIMUM_SPREAD_RATIO: Final = 0.24
"""Half-width of the 90 % interval of a decode speed even where passes repeat perfectly: what 31 of 35 checks
on record kept (``reports/check``), of 17 files on a shared machine, in two campaigns."""
PREFILL_SPREAD_RATIO: Final = 0.03
"""What a prompt adds to it: 32 of the 35."""
UNKNOWN_TYPE_SPREAD_RATIO: Final = 0.35
"""The same for weights of types that were not calibrated, by their share of the bytes."""
HELD_BACK_LOG: Final = math.log(10)
"""How much less a pass may take, times the share of benches that were held back each time: up to a tenth."""


class Matrix(NamedTuple):
    """One matrix product of a pass, -1 as its layer outside of blocks; the head makes the logits.

    Of a matrix of experts a token goes through ``expert_ratio``.
    """

    tensor: Tensor
    layer: int
    is_head: bool = False
    expert_ratio: float = 1.0

    def touched(self, tokens: int) -> tuple[float, float]:
        """Share of the matrix that a batch touches, and tokens that each touched expert computes."""
        share = 1 - (1 - self.expert_ratio) ** tokens
        return share, tokens * self.expert_ratio / share

    def read_bytes(self, tokens: int) -> float:
        """Bytes of it that a batch reads."""
        return self.tensor.size_bytes * self.touched(tokens)[0]


class Timed(NamedTuple):
    """An engine whose costs were timed.

    ``bandwidth_bytes_per_s`` is the fastest reading of memory that anything has shown; ``working_sets`` tell
    how much faster what the caches hold is read.
    """

    costs: Calibration
    bandwidth_bytes_per_s: float
    working_sets: tuple[tuple[int, float], ...] = ()

    def reading_bytes_per_s(self, size: float) -> float:
        """Ceiling of reading so many bytes again and again."""
        held = [speed for most, speed in self.working_sets if most >= size / 2]
        return max([self.bandwidth_bytes_per_s, *held])

    def seconds(self, parts: Sequence[Part], asked: Pass) -> Terms:
        """Seconds of these parts by cause.

        Raises:
            ValueError: No calibrated type at all.
        """
        total = Terms(0.0, 0.0, 0.0, 0.0)
        for part in parts:
            if part.weights is not None and part.weights.tensors:
                total = total.plus(self._part(part.weights, asked, begins=part.begins))
        return total

    def _part(self, weights: Weights, asked: Pass, *, begins: bool) -> Terms:
        shape = weights.shape
        costs = self.costs
        products_s = overhead_s = attention_s = read_bytes = 0.0
        listed = list(matrices(weights))
        cached = self._cached_share(shape, listed, asked)
        layer_s = costs.layer_overhead_s * _node_ratio(shape)
        for start in range(0, asked.token_count, asked.ubatch_tokens):
            batch = min(asked.ubatch_tokens, asked.token_count - start)
            wanted = 0
            if asked.verified:
                wanted = batch
            elif start + batch == asked.token_count:
                wanted = asked.sequences
            for matrix in listed:
                tokens = batch
                last_block = matrix.layer == shape.layer_count - 1 and ".ffn_" in matrix.tensor.name
                if matrix.is_head or last_block:
                    tokens = wanted
                if tokens:
                    products_s += product_seconds(matrix, costs, tokens, cached)
                    read_bytes += matrix.read_bytes(tokens)
            overhead_s += begins * costs.token_overhead_s
            overhead_s += shape.layer_count * (layer_s + batch * costs.token_layer_s)
        for start in range(0, asked.tokens, asked.ubatch_tokens):
            batch = min(asked.ubatch_tokens, asked.tokens - start)
            depth = asked.depth_tokens + start
            attention_s += asked.sequences * _attention_s(shape, costs, batch, depth, asked.kv_type)
        read_s = min(read_bytes / self.bandwidth_bytes_per_s, products_s)
        return Terms(overhead_s, read_s, products_s - read_s, attention_s)

    def _cached_share(self, shape: ModelShape, listed: Sequence[Matrix], asked: Pass) -> float:
        """Share of the bytes of a pass, weights and KV, that the caches still hold from the pass before."""
        if not self.costs.cached_shares or asked.token_count >= OFFLOAD_TOKENS:
            return 0.0
        size = sum(matrix.read_bytes(asked.token_count) for matrix in listed)
        size += asked.sequences * kv_read_bytes(shape, asked.depth_tokens + asked.tokens, asked.kv_type)
        shares = [(math.log(held), share) for held, share in self.costs.cached_shares]
        return _between(shares, math.log(max(size, 1)))

    def spread(self, part: Part, asked: Pass) -> tuple[float, float]:
        """How far ln(time) may lie above and below: the calibration's own spread, more for types not timed."""
        known = {cost.type_name for cost in self.costs.types}
        total = unknown = 0
        for matrix in matrices(part.weights) if part.weights else ():
            total += matrix.tensor.size_bytes
            if matrix.tensor.type_name not in known:
                unknown += matrix.tensor.size_bytes
        ratio = max(self.costs.spread_ratio, MINIMUM_SPREAD_RATIO)
        ratio += UNKNOWN_TYPE_SPREAD_RATIO * unknown / max(total, 1)
        if asked.is_prompt:
            ratio += PREFILL_SPREAD_RATIO
        held_back = HELD_BACK_LOG * self.costs.disturbed_ratio
        return math.log1p(ratio), math.log1p(ratio) + held_back

    def evidence(self, _asked: Pass) -> Evidence:
        """Timed on this device."""
        return Evidence(basis=Basis.TIMED)


def timed_costs(device: Device, costs: Calibration) -> Timed:
    """The costs of one engine; it may have caught the memory in a better moment than the probe of the memory did."""
    pool = device.pool(device.pool_for(costs.api))
    figure = pool.measured_read_bytes_per_s or pool.bandwidth_bytes_per_s
    readings = [1 / cost.batch_seconds_per_byte[0][1] for cost in costs.types]
    return Timed(costs, max([figure.value, *readings]), pool.working_sets if costs.cached_shares else ())


def matrices(weights: Weights) -> Iterator[Matrix]:
    """Every matrix that a pass multiplies with; token tables that are only looked up are not among them."""
    shape = weights.shape
    looked_up = ("per_layer_token_embd", "position_embd")
    for tensor in weights.tensors:
        name = tensor.name
        if len(tensor.dims) < 2 or "conv1d" in name or name.startswith(looked_up):
            continue
        if name == EMBEDDING_TABLE:
            if not weights.has_output:
                yield Matrix(tensor, -1, is_head=True)
        elif "_exps" in name:
            yield Matrix(tensor, tensor.block, expert_ratio=shape.expert_ratio)
        else:
            yield Matrix(tensor, tensor.block, is_head=tensor.role == "output")


def at_batch(table: tuple[tuple[int, float], ...], batch_tokens: float) -> float:
    """Cost at a batch between, before or after the measured ones.

    Linear between neighbours; beyond the last one it grows in proportion to the batch; below the first it is
    the first one's. An empty table costs nothing.
    """
    if not table:
        return 0.0
    return _between(table, batch_tokens) * max(batch_tokens / table[-1][0], 1.0)


def _between(table: Sequence[tuple[float, float]], place: float) -> float:
    """The value at a place of a table (place, value): linear between neighbours, beyond the ends that of the end."""
    after = bisect(table, place, key=lambda row: row[0])
    if after in {0, len(table)}:
        return table[max(after - 1, 0)][1]
    (left, low), (right, high) = table[after - 1 : after + 1]
    return low + (high - low) / (right - left) * (place - left)


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


def product_seconds(
    matrix: Matrix, calibration: Calibration, tokens: int, cached_share: float = 0.0
) -> float:
    """Seconds of one matrix product, of whose bytes the caches give that share."""
    tensor = matrix.tensor
    cost, factor = type_cost(calibration, tensor.type_name)
    share, batch = matrix.touched(tokens)
    row_count = tensor.element_count // tensor.dims[0] * share
    if cached_share and cost.cached_ratios:
        factor *= 1 - cached_share * (1 - _between(cost.cached_ratios, batch))
    return (
        tensor.size_bytes * share * factor * at_batch(cost.batch_seconds_per_byte, batch)
        + row_count * at_batch(cost.batch_seconds_per_row, batch)
        # Experts of one matrix share its barrier: the product costs once, however many of them there are.
        + at_batch(cost.batch_seconds_per_product, batch)
    )


def _attention_s(
    shape: ModelShape, calibration: Calibration, batch_tokens: int, depth_tokens: float, kv_type: str
) -> float:
    flops = prompt_of(shape, batch_tokens, depth_tokens + 0.5).attention_flops  # a token sees itself
    if batch_tokens >= OFFLOAD_TOKENS:
        return flops / calibration.attention_flops_per_s
    read_s = (
        kv_read_bytes(shape, round(depth_tokens) + batch_tokens, kv_type) / calibration.kv_read_bytes_per_s
    )
    return read_s + flops / (2 * min(attention_width(shape), _WIDE)) * calibration.attention_pair_s


def _node_ratio(shape: ModelShape) -> float:
    """Graph nodes of a layer over those of a plain llama layer.

    Biases of q, k, v: 3 sums. Norms of q and k: 2 x 2 nodes. Gemma 2 and 3: 2 x 2 nodes of norms after the
    blocks.
    """
    extra = 3 * shape.attention_bias + 4 * shape.qk_norm
    extra += 4 * has(shape.architecture, "timed_post_norms")
    return (LLAMA_LAYER_NODES + extra) / LLAMA_LAYER_NODES
