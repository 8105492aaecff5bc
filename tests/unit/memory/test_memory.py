"""Peak memory against measured peaks, and its arithmetic against hand sums."""

import msgspec
import pytest

from harness.core.model import Tensor, Weights
from harness.core.placement import Placement
from harness.core.prediction import PartKind
from harness.core.scenario import Scenario
from harness.core.units import MIB
from harness.hardware.devices import load_device
from harness.memory.compute_buffer import HOST, scratch_bytes, tower_buffer_bytes, whole_layout
from harness.memory.peak import (
    driver_bytes,
    later_parts,
    memory_of,
    with_draft,
    with_head,
    without_parts,
)
from harness.memory.repack import repacked_bytes, repacked_types
from harness.models.names import load_model
from harness.models.weights import weights_of

AVX512 = ("avx2", "avx512", "avx512_vnni")


def _device(isa: tuple[str, ...]):
    device = load_device("raspberry-pi-5")
    engine = msgspec.structs.replace(device.engine_for("cpu"), isa=isa, apis=("cpu",))
    return msgspec.structs.replace(device, engines=(engine,))


# VmHWM in MiB of a child that loads the file, makes the context and decodes 508 tokens (500 + 8): llama-cpp-python
# 0.3.36 on a 2-core EPYC with AVX-512. The two Qwen files carry an output matrix of their own.
MEASURED = [
    # model, untied, quant, context, repack, peak
    ("smollm2-135m", False, "Q8_0", 4096, True, 304.7),
    ("smollm2-135m", False, "Q4_K_M", 16384, True, 546.8),
    ("smollm2-135m", False, "Q2_K", 512, True, 214.4),
    ("gemma-3-270m", False, "F16", 4096, True, 647.7),
    ("gemma-3-270m", False, "Q4_K_M", 16384, True, 421.2),
    ("gemma-3-270m", False, "Q2_K", 4096, False, 356.2),
    ("qwen2.5-coder-0.5b", True, "F16", 512, True, 1337.9),
    ("qwen2.5-coder-0.5b", True, "Q8_0", 16384, False, 961.2),
    ("qwen2.5-coder-1.5b", True, "F16", 4096, True, 3666.7),
    ("qwen2.5-coder-1.5b", True, "Q8_0", 512, True, 1973.3),
    ("qwen2.5-coder-1.5b", True, "Q8_0", 16384, False, 2410.2),
]


@pytest.mark.parametrize(("model", "untied", "quant", "context", "repack", "peak_mib"), MEASURED)
def test_measured_peaks(model: str, untied: bool, quant: str, context: int, repack: bool, peak_mib: float) -> None:
    shape = load_model(model).shape
    if untied:
        shape = msgspec.structs.replace(shape, tied_embeddings=False)
    scenario = Scenario(context_tokens=context, prompt_tokens=500, new_tokens=8, repack=repack)
    memory = memory_of(weights_of(shape, quant), scenario, _device(AVX512))
    assert memory.peak_bytes.mid / MIB == pytest.approx(peak_mib, rel=0.03)
    assert memory.peak_bytes.low / MIB <= peak_mib <= memory.peak_bytes.high / MIB


# RSS in MiB of children of the harness that load the file with ik-llama-cpp-python 0.1.5 on a 2-core EPYC with AVX2 and
# decode. SmolLM2's table is its output matrix too, and in Q8_0 in that file.
IK_MEASURED = [
    # model, quant, context, prompt, peak
    ("smollm2-135m", "Q4_1", 512, 64, 225.2),
    ("smollm2-135m", "Q4_1", 4096, 64, 304.4),
    ("smollm2-135m", "Q4_1", 8192, 64, 394.9),
    ("smollm2-135m", "Q4_1", 4096, 512, 310.1),
    ("qwen2.5-coder-0.5b", "Q4_K_M", 512, 16, 596.8),
]


@pytest.mark.parametrize(("model", "quant", "context", "prompt", "peak"), IK_MEASURED)
def test_peak_of_ik(model: str, quant: str, context: int, prompt: int, peak: float) -> None:
    shape = load_model(model).shape.replace(tied_embeddings=model.startswith("smollm2"))
    weights = weights_of(shape, quant)
    scenario = Scenario(context_tokens=context, prompt_tokens=prompt, mmap=False, program="ik-llama-cpp-python")
    assert memory_of(weights, scenario).peak_bytes.mid / MIB == pytest.approx(peak, rel=0.03)


@pytest.mark.parametrize(
    ("model", "quant", "repacked_mib"),
    [
        # "CPU_REPACK model buffer size" of llama.cpp's log on a CPU with AVX-512
        ("smollm2-135m", "Q4_K_M", 7.59),
        ("smollm2-135m", "Q2_K", 42.71),
        ("gemma-3-270m", "Q4_K_M", 12.66),
        ("gemma-3-270m", "Q2_K", 33.22),
        ("smollm2-135m", "Q8_0", 0.0),
        ("smollm2-135m", "F16", 0.0),
    ],
)
def test_repacked_bytes_are_those_of_the_log(model: str, quant: str, repacked_mib: float) -> None:
    size = repacked_bytes(weights_of(load_model(model).shape, quant), AVX512)
    assert size / MIB == pytest.approx(repacked_mib, abs=0.006)


def test_what_is_repacked_depends_on_the_cpu() -> None:
    assert "Q2_K" not in repacked_types(("avx2",))
    assert "Q2_K" in repacked_types(AVX512)
    assert {"Q5_K", "Q6_K", "Q8_0"} <= set(repacked_types(("neon", "dotprod")))
    assert repacked_types(("sse4_2",)) == {}
    one = Tensor(name="blk.0.ffn_up.weight", dims=(256, 12), type_name="Q4_K", size_bytes=12 * 144)
    weights = Weights(shape=load_model("llama-3.1-8b").shape, tensors=(one,), file_bytes=2000, quant="Q4_K_M")
    assert repacked_bytes(weights, ("avx2",)) == 0  # 12 rows are no multiple of 8


@pytest.mark.parametrize(
    ("model", "context", "mib"),
    [
        # "CPU compute buffer size" of llama.cpp's log: mostly 512 x vocabulary x 4 bytes of logits
        ("smollm2-135m", 4096, 98.25),
        ("llama-3.1-8b", 16384, 266.5),
        ("qwen3-30b-a3b", 4096, 304.75),
        ("gemma-2-2b", 16384, 509.0),
        ("gemma-3-4b", 16384, 522.0),
    ],
)
def test_reserved_scratch_is_that_of_the_log(model: str, context: int, mib: float) -> None:
    shape, scenario = load_model(model).shape, Scenario(context_tokens=context, ubatch_tokens=512)
    size = scratch_bytes(shape, scenario, whole_layout(shape, "cpu"))[HOST]
    assert size / MIB == pytest.approx(mib, rel=0.001)


def test_without_mmap_nothing_is_file_backed_but_code() -> None:
    weights = weights_of(load_model("smollm2-135m").shape, "Q4_K_M")
    mapped = memory_of(weights, Scenario())
    read = memory_of(weights, Scenario(mmap=False))
    assert read.file_bytes < mapped.file_bytes
    assert read.anonymous_bytes > mapped.anonymous_bytes
    by_name = {p.label: p for p in read.parts}
    tensor_bytes = sum(t.size_bytes for t in weights.tensors)
    assert by_name["weights"].anonymous_bytes + by_name["repacked weights"].anonymous_bytes == tensor_bytes


def test_a_card_holds_weights_cache_and_scratch_in_its_own_pool() -> None:
    device = load_device("rtx-4090-desktop")
    memory = memory_of(weights_of(load_model("llama-3.1-8b").shape, "Q4_K_M"), Scenario(), device)
    pools = {p.label: p.pool for p in memory.parts}
    assert pools["weights"] == pools["kv cache"] == pools["compute buffer"] == "vram"
    assert pools["token table"] == pools["runtime"] == "ram"
    table = next(p for p in memory.parts if p.label == "token table")
    assert table.file_bytes == 128256 * 4096 // 256 * 144  # Q4_K, looked up by the CPU


def test_a_unified_gpu_holds_everything_in_ram() -> None:
    memory = memory_of(weights_of(load_model("llama-3.1-8b").shape, "Q4_K_M"), Scenario(), load_device("iphone-16-pro"))
    assert {p.pool for p in memory.parts} == {"ram"}
    assert memory.anonymous_bytes > 4.5e9


def test_parts_add_up() -> None:
    memory = memory_of(weights_of(load_model("qwen3-8b").shape, "Q4_K_M"), Scenario())
    assert memory.anonymous_bytes + memory.file_bytes == sum(p.anonymous_bytes + p.file_bytes for p in memory.parts)
    assert memory.peak_bytes.mid >= memory.anonymous_bytes + memory.file_bytes
    assert memory.peak_bytes.low < memory.peak_bytes.mid < memory.peak_bytes.high


def test_a_head_that_drafts_has_a_context_of_its_own() -> None:
    """The draft context of a log (Qwen3.8-27B with MTP, Vulkan, 4 slots of one cache): KV 32.00, compute 520.06 MiB."""
    scenario = Scenario(
        context_tokens=8192, ubatch_tokens=2048, program="llama-server b9849 -np 4 -kvu", api="vulkan", draft_tokens=2
    )
    weights, device = weights_of(load_model("qwen3.8-27b").shape, "Q5_K_M"), load_device("rtx-3090-desktop")
    plain = memory_of(weights, scenario, device)
    found = {part.label: part for part in with_head(plain, weights, scenario, device).parts}
    assert found["draft kv cache"].anonymous_bytes == 32 * MIB
    assert found["draft compute buffer"].anonymous_bytes == pytest.approx(520.06 * MIB, rel=0.001)
    assert found["draft weights"].pool == "vram"


@pytest.mark.parametrize(
    ("patches", "tokens", "hidden", "low_mib", "high_mib"),
    [
        # Qwen3-VL-235B: what start-ups of 4 slots and of one hold beside the file of the tower
        (4096, 1024, 1152, 360, 463),
        (4096, 256, 1152, 200, 220),  # 896 x 896 always: 4,096 patches of 8,608 + 4,608 entries in F32
    ],
)
def test_the_buffer_of_an_image_tower(patches: int, tokens: int, hidden: int, low_mib: float, high_mib: float) -> None:
    assert low_mib * MIB < tower_buffer_bytes(patches, tokens, hidden) < high_mib * MIB


@pytest.mark.parametrize("quant", ["Q4_K_M", "Q8_0"])
def test_half_of_the_interval_is_three_percent_and_twelve_mib(quant: str) -> None:
    memory = memory_of(weights_of(load_model("llama-3.2-1b").shape, quant), Scenario(), _device(("avx2",)))
    peak = memory.peak_bytes
    assert peak.mid == sum(part.anonymous_bytes + part.file_bytes for part in memory.parts)
    assert peak.high - peak.mid == pytest.approx(peak.mid - peak.low) == pytest.approx(0.03 * peak.mid + 12 * MIB)
    anonymous = memory.anonymous
    assert anonymous.high - anonymous.mid == pytest.approx((peak.high - peak.mid) / 2)


@pytest.mark.parametrize(("mmap", "headers"), [(True, 2), (False, 1)])
def test_the_peak_of_a_short_context_is_the_end_of_loading(mmap: bool, headers: int) -> None:
    """No cache and no scratch yet; the header parsed, and mapped once more where the file is."""
    weights = weights_of(load_model("gemma-3-270m").shape, "Q8_0")
    weights = weights.replace(file_bytes=weights.tensor_bytes + 100 * MIB)
    scenario = Scenario(context_tokens=256, prompt_tokens=16, mmap=mmap)
    memory = memory_of(weights, scenario, _device(("avx2",)))
    loaded = [part for part in memory.parts if part.kind not in {PartKind.KV_CACHE, PartKind.COMPUTE}]
    assert memory.peak_bytes.mid == sum(part.size_bytes for part in loaded) + headers * 100 * MIB
    assert memory.peak_bytes.mid > sum(part.size_bytes for part in memory.parts)


def test_a_draft_brings_all_but_the_process_itself() -> None:
    device, scenario = load_device("rtx-3090-desktop"), Scenario()
    target = memory_of(weights_of(load_model("llama-3.1-8b").shape, "Q8_0"), scenario, device)
    draft = memory_of(weights_of(load_model("llama-3.2-1b").shape, "Q8_0"), scenario, device)
    both = with_draft(target, draft)
    drafts = [part for part in both.parts if part.drafts]
    assert {part.kind for part in draft.parts} - {part.kind for part in drafts} == {PartKind.RUNTIME, PartKind.DRIVER}
    added = sum(part.size_bytes for part in drafts)
    assert both.peak_bytes.mid == target.peak_bytes.mid + added
    assert both.peak_bytes.high == pytest.approx(target.peak_bytes.high + 1.03 * added)
    assert both.peak_bytes.low == pytest.approx(target.peak_bytes.low + 0.97 * added)
    assert without_parts(both, {PartKind.KV_CACHE}).peak_bytes.mid == both.peak_bytes.mid - sum(
        part.size_bytes for part in target.parts if part.kind is PartKind.KV_CACHE
    )


def test_a_driver_is_doubted_by_its_own_interval() -> None:
    found = [driver_bytes(api, chip) for api, chip in (("cuda", "GeForce RTX 3090"), ("cpu", "Ryzen 9 7950X"))]
    assert found[0].low < found[0].mid < found[0].high
    assert (found[1].low, found[1].mid, found[1].high) == (0, 0, 0)


@pytest.mark.parametrize("placement", [Placement(), Placement(gpu_layers=16), Placement(kv_on_gpu=False)])
def test_the_cache_lies_with_its_blocks_or_with_the_cpu_and_nowhere_twice(placement: Placement) -> None:
    weights, device = weights_of(load_model("llama-3.1-8b").shape, "Q8_0"), load_device("rtx-3090-desktop")
    parts = memory_of(weights, Scenario(placement=placement), device).parts
    sizes = {kind: sum(p.size_bytes for p in parts if p.kind is kind) for kind in PartKind}
    on_card = {"all": 32, 16: 15}[placement.gpu_layers] if placement.kv_on_gpu else 0
    assert sizes[PartKind.KV_CACHE] == on_card * 16 * MIB  # 8 heads x 128 x 2 x 2 bytes x 4,096 cells
    assert sizes[PartKind.CPU_KV_CACHE] == (32 - on_card) * 16 * MIB


@pytest.mark.parametrize(("mmap", "kind"), [(True, PartKind.TABLE), (False, PartKind.CPU_WEIGHTS)])
def test_what_stays_with_the_cpu_is_mapped_or_held(mmap: bool, kind: PartKind) -> None:
    weights, device = weights_of(load_model("llama-3.1-8b").shape, "Q8_0"), load_device("rtx-3090-desktop")
    placement = Placement() if kind is PartKind.TABLE else Placement(gpu_layers=16)
    parts = memory_of(weights, Scenario(placement=placement, mmap=mmap), device).parts
    part = next(part for part in parts if part.kind is kind)
    held, mapped = part.anonymous_bytes, part.file_bytes
    assert (held > 0, mapped > 0) == (not mmap, mmap)
    on_card = sum(part.anonymous_bytes for part in parts if part.kind is PartKind.WEIGHTS)
    assert on_card + held + mapped == weights.tensor_bytes


@pytest.mark.parametrize(
    ("model", "program", "kinds"),
    [
        ("llama-3.1-8b", "", set()),
        ("llama-3.1-8b", "llama-server", {PartKind.PROMPT_CACHE}),
        ("llama-3.1-8b", "llama-server --cache-ram 0", set()),
        ("gemma-3-4b", "llama-server", {PartKind.PROMPT_CACHE, PartKind.CHECKPOINTS}),
        ("gemma-3-4b", "llama-server --cache-ram 0", {PartKind.CHECKPOINTS}),
        ("gemma-3-4b", "llama-server --cache-ram 0 --ctx-checkpoints 0", set()),
        ("gemma-3-4b", "llama-server --cache-ram 0 --swa-full", set()),
    ],
)
def test_what_a_program_adds_over_many_turns(model: str, program: str, kinds: set[PartKind]) -> None:
    later = later_parts(load_model(model).shape, Scenario(program=program))
    assert {part.kind for part in later} == kinds
