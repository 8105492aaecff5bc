"""KV cache against hand sums and against what llama.cpp's own log says of the same shapes."""

import pytest
from msgspec.structs import replace

from harness.core.model import ModelShape
from harness.core.scenario import Scenario
from harness.core.units import GIB, MIB
from harness.memory.kv_cache import (
    block_cache_bytes,
    cells_of,
    kv_cache_bytes,
    kv_read_bytes,
    layer_counts,
    padded,
    recurrent_ratio,
    row_pair_bytes,
    state_bytes,
)
from harness.models.names import load_model


def cache_bytes(shape: ModelShape, context_tokens: int, kv_type: str = "F16", sequence_count: int = 1) -> int:
    return kv_cache_bytes(shape, Scenario(context_tokens=context_tokens, kv_type=kv_type, batch_count=sequence_count))


def test_llama_3_1_8b_at_8192_is_one_gib() -> None:
    # 2 (K, V) x 32 layers x 8 KV heads x 128 x 2 bytes x 8192 tokens = 2**30
    assert cache_bytes(load_model("llama-3.1-8b").shape, 8192) == GIB


@pytest.mark.parametrize(
    ("model", "context", "kv_type", "mib"),
    [
        # "llama_kv_cache: size = ... MiB" of llama.cpp (llama-fit-params -v, the release in llama-cpp-python 0.3.36)
        ("smollm2-135m", 4096, "F16", 90.0),
        ("smollm2-135m", 8192, "Q8_0", 95.62),
        ("llama-3.1-8b", 16384, "F16", 2048.0),
        ("llama-3.1-8b", 8192, "Q8_0", 544.0),
        ("phi-3-mini", 4096, "F16", 1536.0),
        ("mixtral-8x7b", 4096, "F16", 512.0),
        ("qwen3-30b-a3b", 4096, "F16", 384.0),
        ("gemma-3-4b", 4096, "F16", 80.0 + 174.0),  # five global layers, 29 with min(4096, 1024 + 512) = 1536 cells
        ("gemma-3-4b", 16384, "F16", 320.0 + 174.0),
        ("gpt-oss-20b", 16384, "F16", 384.0 + 18.0),  # window 128 + ubatch 512 = 640, rounded up to 768 cells
        ("gemma-2-2b", 16384, "F16", 832.0 + 234.0),
        ("deepseek-v2-lite", 16384, "F16", 486.0),  # one row of 512 + 64 a layer, no V
        ("mamba-2.8b", 4096, "F16", 23.75),
        ("mamba2-2.7b", 4096, "F16", 163.94),
        ("qwen3-next-80b-a3b", 4096, "F16", 96.0 + 75.38),
    ],
)
def test_agrees_with_llama_cpp(model: str, context: int, kv_type: str, mib: float) -> None:
    assert cache_bytes(load_model(model).shape, context, kv_type) / MIB == pytest.approx(mib, abs=0.011)


def test_context_is_rounded_up_to_256() -> None:
    assert [padded(n) for n in (1, 256, 257, 4000)] == [256, 256, 512, 4096]
    shape = load_model("llama-3.1-8b").shape
    assert cache_bytes(shape, 4000) == cache_bytes(shape, 4096)


def test_a_row_that_blocks_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="256 weights in a block"):
        cache_bytes(load_model("smollm2-135m").shape, 512, "Q4_K")  # a row of 3 x 64 = 192


def test_read_grows_with_depth_and_stops_at_the_window() -> None:
    gemma = load_model("gemma-3-270m").shape
    # A row pair is 2 x 1 KV head x 256 x 2 bytes = 1024 bytes; 3 of 18 layers are global, the window is 512.
    assert kv_read_bytes(gemma, 100) == 18 * 100 * 1024
    assert kv_read_bytes(gemma, 2048) == (3 * 2048 + 15 * 512) * 1024


def test_states_do_not_grow_with_context() -> None:
    shape = load_model("mamba2-2.7b").shape
    assert cache_bytes(shape, 512) == cache_bytes(shape, 65536)
    assert cache_bytes(shape, 512, sequence_count=3) == 3 * cache_bytes(shape, 512)


@pytest.mark.parametrize(
    ("program", "users", "streams", "full", "flags"),
    [
        ("llama-server", 1, 1, 5120, ""),  # four slots, which share one cache by default
        ("llama-server", 4, 4, 1280, "-np 4"),
        ("llama-server", 8, 8, 768, "-np 8"),  # 640, rounded up
        ("llama-server -np 8 -kvu", 8, 1, 5120, "-np 8 --kv-unified"),
        ("", 8, 8, 768, "-np 8"),
    ],
)
def test_the_cache_is_that_of_the_command(program: str, users: int, streams: int, full: int, flags: str) -> None:
    asked = Scenario(context_tokens=5120, batch_count=users, program=program)
    cells = cells_of(asked)
    assert (cells.streams, cells.full, asked.flags) == (streams, full, flags)


def test_latent_attention_cached_every_head_until_april_2025() -> None:
    """DeepSeek-R1 with 8,192 cells, start-up of February 2025: 5,120 MiB for eight layers; 576 entries a row since."""
    shape = load_model("deepseek-r1").shape
    asked = Scenario(context_tokens=8192, program="llama-server b4700 -np 1", flash_attention=False)
    assert block_cache_bytes(shape, cells_of(asked))[0] == 640 * MIB
    later = replace(asked, program="llama-server b5200 -np 1")
    assert block_cache_bytes(shape, cells_of(later))[0] == 8192 * 576 * 2


@pytest.mark.parametrize(
    ("program", "users", "drafts", "outputs"),
    [
        ("", 1, 0, 512),  # the harness itself: logits of a whole physical batch
        ("llama-server", 1, 0, 4),  # four slots unless -np is given
        ("llama-server -np 1", 1, 0, 1),
        ("llama-server -np 1", 1, 3, 4),  # of the token and of each that is drafted
        ("llama-server", 6, 2, 18),
        ("llama-server", 400, 2, 512),  # never more than the batch has
    ],
)
def test_logits_are_reserved_for_each_slot_and_each_draft(program: str, users: int, drafts: int, outputs: int) -> None:
    scenario = Scenario(program=program, batch_count=users, draft_tokens=drafts, context_tokens=1 << 20)
    cells = cells_of(scenario)
    assert cells.outputs == outputs
    assert cells.state_rows == cells.sequences * (1 + drafts)


@pytest.mark.parametrize(
    ("context", "users", "ubatch", "full", "batch"),
    [(4096, 1, 512, 4096, 512), (100, 1, 512, 256, 256), (4096, 3, 512, 1536, 512), (4097, 1, 1, 4352, 1)],
)
def test_each_sequence_has_whole_paddings_of_an_equal_part(
    context: int, users: int, ubatch: int, full: int, batch: int
) -> None:
    cells = cells_of(Scenario(context_tokens=context, batch_count=users, ubatch_tokens=ubatch))
    assert (cells.full, cells.streams, cells.sequences, cells.batch) == (full, 1 if users == 1 else users, users, batch)


def test_a_sliding_cache_keeps_windows_and_a_batch_of_what_its_build_adds() -> None:
    """Of llama.cpp before b5554 a logical batch, then a physical one (#13833)."""
    found = [cells_of(Scenario(program=f"llama-server b{build} -np 1", context_tokens=32768)) for build in (5500, 5554)]
    assert [cells.sliding(1024) for cells in found] == [1024 + 2048, 1024 + 512]
    assert cells_of(Scenario(context_tokens=512)).sliding(1024) == 512
    apart = cells_of(Scenario(batch_count=2, context_tokens=65536))
    assert (apart.streams, apart.sliding(1024)) == (2, 1024 + 512)
    both = cells_of(Scenario(program="llama-server -np 2 -kvu", context_tokens=32768))
    assert both.sliding(1024) == 2 * 1024 + 512


def test_values_may_have_a_type_of_their_own() -> None:
    """32 layers x 8 KV heads x 128 entries of 4,096 cells: keys in 34 bytes of 32, values in 18."""
    shape = load_model("llama-3.1-8b").shape
    mixed = Scenario(kv_type="Q8_0", value_type="Q4_0")
    assert kv_cache_bytes(shape, mixed) == 32 * 8 * 4 * 4096 * (34 + 18)
    assert kv_cache_bytes(shape, mixed.replace(value_type="")) == 32 * 8 * 4 * 4096 * 68


def test_every_block_of_falcon_h1_has_a_state_beside_its_attention() -> None:
    shape = load_model("falcon-h1-7b").shape
    assert layer_counts(shape) == (shape.layer_count, 0, shape.layer_count)
    assert recurrent_ratio(shape) == 1
    blocks = block_cache_bytes(shape, cells_of(Scenario()))
    assert blocks[0] == row_pair_bytes(shape, "F16") * 4096 + state_bytes(shape)
    plain = load_model("llama-3.1-8b").shape
    assert (layer_counts(plain), recurrent_ratio(plain)) == ((32, 0, 0), 0)


def test_an_indexer_keeps_a_row_of_keys_of_its_own() -> None:
    """One of 128 entries in each of its layers, spread over all."""
    shape = load_model("llama-3.1-8b").shape
    more = kv_cache_bytes(replace(shape, indexer_layer_count=8), Scenario()) - kv_cache_bytes(shape, Scenario())
    assert more == 4096 * 8 * 128 * 2


def test_layers_that_share_a_cache_have_none_and_read_it_once_more() -> None:
    """Gemma 4 E4B: of 7 full and 35 sliding layers the last 18 have no rows; 2 heads of 512, and of 256."""
    shape = load_model("gemma-4-e4b").shape
    assert layer_counts(shape) == (4, 20, 0)
    full, sliding = 2 * 2 * 512 * 2, 2 * 2 * 256 * 2
    blocks = block_cache_bytes(shape, cells_of(Scenario()))
    assert len(blocks) == 42
    assert blocks[24:] == [0] * 18
    assert sum(blocks) == 4 * 4096 * full + 20 * (512 + 512) * sliding
    assert kv_read_bytes(shape, 1000) == 7 * 1000 * full + 35 * 512 * sliding


def test_llama_cpp_python_keeps_the_whole_context_of_sliding_layers() -> None:
    cells = cells_of(Scenario(program="llama-cpp-python", context_tokens=16384))
    assert cells.sliding(512) == cells.full == 16384


def test_a_state_is_read_whole_for_each_token() -> None:
    """Mamba 2.8B: 64 layers of 3 x 5120 and 5120 x 16 numbers in F32; none without recurrent layers."""
    shape = load_model("mamba-2.8b").shape
    assert state_bytes(shape) == 4 * (3 * 5120 + 5120 * 16)
    assert kv_read_bytes(shape, 1000) == 64 * state_bytes(shape)
    assert row_pair_bytes(shape, "F16") == row_pair_bytes(shape, "F16", sliding=True) == 0
    assert state_bytes(load_model("llama-3.1-8b").shape) == 0
