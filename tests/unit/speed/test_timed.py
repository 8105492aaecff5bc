"""Speed from measured costs: every expected number below is summed by hand."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.device import Calibration, TypeCost
from harness.core.model import Experts, ModelShape, Tensor, Weights
from harness.core.scenario import Scenario
from harness.hardware.devices import load_device
from harness.memory.kv_cache import kv_read_bytes
from harness.speed import timed
from harness.speed.decode import Terms
from harness.speed.estimate import predict_speed
from harness.speed.passes import NOTHING, OFFLOAD_TOKENS, Part, Pass

SHAPE = ModelShape(
    architecture="llama",
    layer_count=2,
    hidden_dim=256,
    vocab_count=1000,
    head_count=4,
    kv_head_count=2,
    head_dim=64,
    feed_forward_dim=512,
)


def tensor(name: str, dims: tuple[int, ...], type_name: str, size: int) -> Tensor:
    return Tensor(name=name, dims=dims, type_name=type_name, size_bytes=size)


# Q8_0: 34 bytes in 32 weights. 256 x 512: 131,072 weights = 139,264 bytes in 512 rows.
WEIGHTS = Weights(
    shape=SHAPE,
    tensors=(
        tensor("token_embd.weight", (256, 1000), "F16", 512_000),
        tensor("output.weight", (256, 1000), "F16", 512_000),
        tensor("output_norm.weight", (256,), "F32", 1024),
        tensor("blk.0.attn_q.weight", (256, 256), "Q8_0", 69_632),
        tensor("blk.0.ffn_up.weight", (256, 512), "Q8_0", 139_264),
        tensor("blk.1.attn_q.weight", (256, 256), "Q8_0", 69_632),
        tensor("blk.1.ffn_up.weight", (256, 512), "Q8_0", 139_264),
    ),
    file_bytes=2_000_000,
    quant="Q8_0",
)

CALIBRATION = Calibration(
    api="cpu",
    engine_version="engine 1",
    thread_count=2,
    types=(
        TypeCost(
            type_name="Q8_0",
            batch_seconds_per_byte=((1, 1e-9), (4, 4e-9)),
            batch_seconds_per_row=((1, 1e-8), (4, 1e-8)),
            batch_seconds_per_product=((1, 1e-6), (4, 1e-6)),
        ),
        TypeCost(type_name="F16", batch_seconds_per_byte=((1, 2e-9), (4, 3e-9))),
    ),
    token_overhead_s=1e-3,
    layer_overhead_s=1e-4,
    token_layer_s=1e-5,
    kv_read_bytes_per_s=1e9,
    attention_pair_s=2.56e-8,
    attention_flops_per_s=1e11,
    spread_ratio=0.02,
)


ENGINE = timed.Timed(CALIBRATION, 1e12)


def cost(asked: Pass, weights: Weights = WEIGHTS) -> Terms:
    return ENGINE.seconds([Part(NOTHING.work, weights)], asked)


def products_s(terms: Terms) -> float:
    return terms.weights_s + terms.dequantisation_s


def test_costs_of_a_busy_machine_may_be_too_high_and_not_too_low() -> None:
    part, asked = Part(NOTHING.work, WEIGHTS), Pass(1, 99)
    above, below = ENGINE.spread(part, asked)
    held_back = timed.Timed(CALIBRATION.replace(disturbed_ratio=0.5), 1e12).spread(part, asked)
    assert held_back == (above, pytest.approx(below + math.log(10) / 2))


def test_one_token_by_hand() -> None:
    parts = cost(Pass(1, 99))
    # Q8_0 bytes 2 x (69,632 + 139,264) = 417,792 at 1 ns; rows 2 x (256 + 512) = 1,536 at 10 ns; 4 products at 1 us.
    # The output matrix: 512,000 bytes at 2 ns. The token table is looked up, not read; norms cost no product.
    assert products_s(parts) == pytest.approx(417_792e-9 + 1_536e-8 + 4e-6 + 512_000 * 2e-9)
    # 1 ms + 2 layers x (100 us + 10 us)
    assert parts.overhead_s == pytest.approx(1e-3 + 2 * 1.1e-4)
    # KV read at 100 tokens: 2 layers x 100 x 2 heads x (64 + 64) x 2 bytes = 102,400 bytes at 1 GB/s;
    # pairs: 4 heads x 100 x 2 layers = 800 at 25.6 ns.
    assert parts.kv_s == pytest.approx(102_400e-9 + 800 * 2.56e-8)
    assert parts.total_s == pytest.approx(products_s(parts) + parts.overhead_s + parts.kv_s)
    assert parts.weights_s == pytest.approx(929_792 / 1e12)  # reading alone, at the fastest that was seen


def test_only_wanted_tokens_reach_the_head_and_the_last_feed_forward_block() -> None:
    one = products_s(cost(Pass(4)))
    # At batch 4: 4 ns a byte; blk.1.ffn_up and the head at batch 1.
    four_bytes = 69_632 + 139_264 + 69_632
    expected = four_bytes * 4e-9 + 139_264e-9 + (256 + 512 + 256 + 512) * 1e-8 + 4e-6 + 512_000 * 2e-9
    assert one == pytest.approx(expected)
    # The first of two physical batches gives no logits at all.
    none = products_s(cost(Pass(8, ubatch_tokens=4))) - one
    assert none == pytest.approx(four_bytes * 4e-9 + (256 + 512 + 256) * 1e-8 + 3e-6)
    every = products_s(cost(Pass(4, verified=True)))
    assert every - one == pytest.approx(139_264 * 3e-9 + 512_000 * 1e-9)


def test_prefill_attention_by_hand() -> None:
    parts = cost(Pass(64, 100))
    # pairs: 64 x (100 + 32.5) = 8,480 a layer; x 2 layers x 2 x 4 heads x 128 = 17,367,040 FLOP at 100 G/s
    assert parts.kv_s == pytest.approx(17_367_040e-11)


@pytest.mark.parametrize(
    ("batch", "expected"),
    [(0.5, 1.0), (1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (6, 5.0), (8, 6.0), (16, 12.0)],
)
def test_costs_between_and_beyond_the_measured_batches(batch: float, expected: float) -> None:
    # linear between 1, 4 and 8; beyond 8 in proportion: 6 x 16 / 8 = 12
    assert timed.at_batch(((1, 1.0), (4, 4.0), (8, 6.0)), batch) == pytest.approx(expected)


def test_an_empty_table_costs_nothing() -> None:
    assert timed.at_batch((), 3) == 0.0


def test_window_cuts_the_look_back() -> None:
    shape = msgspec.structs.replace(SHAPE, layer_count=6, sliding_window_tokens=512, sliding_step_count=6)
    # five sliding layers see 512, the sixth 2,000: 4,560 tokens x 2 heads x 128 x 2 bytes
    assert kv_read_bytes(shape, 2000) == 4560 * 512


def test_experts_that_are_touched() -> None:
    shape = msgspec.structs.replace(
        SHAPE, experts=Experts(expert_count=8, used_count=2, feed_forward_dim=512), layer_count=1
    )
    weights = Weights(
        shape=shape,
        tensors=(tensor("blk.0.ffn_up_exps.weight", (256, 512, 8), "F16", 8 * 262_144),),
        file_bytes=1,
        quant="F16",
    )
    one = cost(Pass(1), weights)
    # one token touches 8 x (1 - 6/8) = 2 experts of 262,144 bytes at 2 ns
    assert products_s(one) == pytest.approx(2 * 262_144 * 2e-9)
    two = cost(Pass(2, verified=True), weights)
    # two tokens touch 8 x (1 - (6/8)**2) = 3.5, each with 4 / 3.5 tokens: 2 ns + (1/7) / 3 x 1 ns
    assert products_s(two) == pytest.approx(3.5 * 262_144 * (2e-9 + 1e-9 / 21))


def test_a_tied_table_is_the_head() -> None:
    tied = Weights(shape=SHAPE, tensors=WEIGHTS.tensors[:1], file_bytes=1, quant="F16")
    (head,) = timed.matrices(tied)
    assert head.is_head


def test_a_type_that_was_not_timed_costs_what_its_neighbour_does_weight_for_weight() -> None:
    cost, factor = timed.type_cost(CALIBRATION, "Q6_K")  # 6.5625 bits; the nearest timed one has 8.5
    assert cost.type_name == "Q8_0"
    assert factor == pytest.approx(8.5 / 6.5625)
    with pytest.raises(ValueError, match="times no type"):
        timed.type_cost(msgspec.structs.replace(CALIBRATION, types=()), "Q6_K")


def test_unknown_types_widen_the_interval() -> None:
    part, one = Part(NOTHING.work, WEIGHTS), Pass(1)
    assert ENGINE.spread(part, one)[0] == pytest.approx(math.log1p(timed.MINIMUM_SPREAD_RATIO))
    only_f16 = timed.Timed(msgspec.structs.replace(CALIBRATION, types=CALIBRATION.types[1:]), 1e12)
    share = 417_792 / (417_792 + 512_000)
    wide = timed.MINIMUM_SPREAD_RATIO + timed.UNKNOWN_TYPE_SPREAD_RATIO * share
    assert only_f16.spread(part, one) == pytest.approx((math.log1p(wide), math.log1p(wide)))


def test_qwen_and_gemma_layers_have_more_nodes() -> None:
    plain = cost(Pass(1)).overhead_s
    biased = msgspec.structs.replace(WEIGHTS, shape=msgspec.structs.replace(SHAPE, attention_bias=True))
    more = cost(Pass(1), biased).overhead_s
    assert more - plain == pytest.approx(2 * 1e-4 * 3 / 20)


def test_speed_of_a_scenario() -> None:
    device = msgspec.structs.replace(load_device("raspberry-pi-5"), calibrations=(CALIBRATION,))
    scenario = Scenario(prompt_tokens=64, new_tokens=20, depth_tokens=90)
    speed = predict_speed(WEIGHTS, device, scenario)
    assert speed.decode_tokens_per_s.mid == pytest.approx(1 / cost(Pass(1, 100)).total_s)
    assert speed.decode_tokens_per_s.low < speed.decode_tokens_per_s.mid < speed.decode_tokens_per_s.high
    assert sum(speed.limits.values()) == pytest.approx(1.0)
    assert speed.ttft_cold_s.mid > speed.ttft_warm_s.mid
    assert speed.active_bytes == 929_792 + 1024  # the norm is read too


@pytest.mark.parametrize("byte_s", [1e-6, 1.6e-11])  # rewritten; mapped at 63 GB/s, as F16 was here
def test_a_load_takes_what_its_tiny_models_took_by_the_byte(byte_s: float) -> None:
    """929,792 bytes of matrices at so much each, in place of mapping them at 8 GB/s."""
    types = tuple(msgspec.structs.replace(c, load_s_per_byte=byte_s) for c in CALIBRATION.types)
    slow, plain = (
        msgspec.structs.replace(load_device("raspberry-pi-5"), calibrations=(costs,))
        for costs in (msgspec.structs.replace(CALIBRATION, types=types), CALIBRATION)
    )
    scenario = Scenario(prompt_tokens=64, new_tokens=20)
    more = (
        predict_speed(WEIGHTS, slow, scenario).load_warm_s.mid,
        predict_speed(WEIGHTS, plain, scenario).load_warm_s.mid,
    )
    assert more[0] - more[1] == pytest.approx(929_792 * (byte_s - 1 / 8e9))


@given(st.integers(1, 600), st.integers(1, 600), st.integers(0, 5000), st.integers(0, 5000))
def test_more_tokens_and_more_depth_never_cost_less(a: int, b: int, d: int, e: int) -> None:
    small, large = sorted((a, b))
    shallow, deep = sorted((d, e))

    def seconds(batch: int, depth: int) -> float:
        return cost(Pass(batch, depth, ubatch_tokens=1024)).total_s

    assert seconds(small, deep) >= seconds(small, shallow)
    if (small < OFFLOAD_TOKENS) == (large < OFFLOAD_TOKENS):
        assert seconds(large, deep) >= seconds(small, deep) * (1 - 1e-12)


@given(st.floats(1.0, 4.0))
def test_more_bytes_never_cost_less(factor: float) -> None:
    larger = msgspec.structs.replace(
        WEIGHTS,
        tensors=tuple(msgspec.structs.replace(t, size_bytes=int(t.size_bytes * factor)) for t in WEIGHTS.tensors),
    )
    one, more = (cost(Pass(1), w).total_s for w in (WEIGHTS, larger))
    assert more >= one * (1 - 1e-12)


def test_four_sequences_by_hand() -> None:
    parts = cost(Pass(1, 99, sequences=4))
    # Q8_0 at 4 tokens: 417,792 bytes x 4 ns, 1,536 rows x 10 ns, 4 products x 1 us; the output: 512,000 bytes x 3 ns.
    assert products_s(parts) == pytest.approx(1.671168e-3 + 1.536e-5 + 4e-6 + 1.536e-3)
    assert parts.overhead_s == pytest.approx(1e-3 + 2 * (1e-4 + 4 * 1e-5))
    # Each looks back on its own 100 tokens: 102,400 bytes of cache, 204,800 operations.
    assert parts.kv_s == pytest.approx(4 * (102_400 / 1e9 + 204_800 / 1e10))


@given(count=st.integers(1, 16), depth=st.integers(0, 2000))
def test_more_sequences_give_more_tokens_and_never_in_proportion(count: int, depth: int) -> None:
    one, many = cost(Pass(1, depth)), cost(Pass(1, depth, sequences=count))
    assert one.total_s <= many.total_s * (1 + 1e-9)
    assert many.total_s <= count * one.total_s * (1 + 1e-9)


def test_prompts_of_several_sequences_share_batches_but_not_attention() -> None:
    one, both = cost(Pass(100)).total_s, cost(Pass(100, sequences=2)).total_s
    fixed = 1e-3 + 2 * 1e-4 + 4 * 1e-6  # paid once for a batch: pass, layers, products
    # Costs beyond the last measured batch grow with it, so that all the rest is twice as much, but rows of the output.
    assert both == pytest.approx(2 * one - fixed, rel=0.05)
    assert both < 2 * one


def test_what_the_caches_hold_is_read_at_their_speed() -> None:
    """Half of a pass of 8.5 MB comes out of the cache, where a byte costs a quarter: 1 - 0.5 x 0.75 of the time."""
    size = 8192 * 1024 * 34 // 32
    cost = TypeCost(type_name="Q8_0", batch_seconds_per_byte=((1, 1e-10), (512, 1e-10)), cached_ratios=((1, 0.25),))
    costs = Calibration(
        api="cpu", engine_version="e", thread_count=1, types=(cost,), token_overhead_s=0.0, layer_overhead_s=0.0,
        kv_read_bytes_per_s=1e18, attention_flops_per_s=1e18, cached_shares=((size // 4, 1.0), (size * 4, 0.0)),
    )  # fmt: skip
    head = tensor("output.weight", (1024, 8192), "Q8_0", size)
    weights = Weights(shape=SHAPE, tensors=(head,), quant="Q8_0", file_bytes=size)
    engine = timed.Timed(costs, 1e12, ((size // 4, 9e12), (size * 4, 1e12)))
    part = Part(NOTHING.work, weights)
    assert engine.seconds([part], Pass(1)).total_s == pytest.approx(size * 1e-10 * (1 - 0.5 * 0.75), rel=1e-3)
    # as many bytes of KV share the cache: at twice the size a quarter
    token_bytes = SHAPE.layer_count * 2 * SHAPE.kv_head_count * SHAPE.head_dim * 2
    deep = Pass(1, size / token_bytes)
    assert engine.seconds([part], deep).total_s == pytest.approx(size * 1e-10 * (1 - 0.25 * 0.75), rel=1e-3)
    # a prompt computes: where its weights come from does not show
    assert engine.seconds([part], Pass(64)).total_s == pytest.approx(size * 1e-10, rel=1e-3)
    assert (engine.reading_bytes_per_s(size / 4), engine.reading_bytes_per_s(size * 16)) == (9e12, 1e12)
