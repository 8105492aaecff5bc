"""Programs: their defaults by version; buffers against those that llama-server logged or strangers published."""

import pytest

from bench.memory_conformance import KINDS
from harness.core.errors import RefusedError, UnknownNameError
from harness.core.placement import Placement
from harness.core.program import program_named
from harness.core.scenario import Scenario
from harness.core.units import GIB, MIB
from harness.hardware.devices import load_device
from harness.memory.compute_buffer import HOST, scratch_bytes, whole_layout
from harness.memory.kv_cache import block_cache_bytes, cells_of
from harness.memory.peak import later_parts, memory_of
from harness.memory.placed import layout_of, parts_of
from harness.memory.splits import program_fit
from harness.models.cards import load_card
from harness.models.weights import weights_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("llama-server b4000", {"context_tokens": 0, "slots": 1, "fit": False, "flash_attention": False}),
        ("llama-server b6900", {"context_tokens": 4096, "slots": 1, "flash_attention": True, "checkpoints": 8}),
        ("llama-server b9409", {"mask_bytes": 6, "outputs": "ubatch", "slots": 4, "unified": True, "fit": True}),
        ("llama-server b9410", {"mask_bytes": 2, "outputs": "ubatch", "checkpoints": 32}),
        ("llama-server b9460", {"mask_bytes": 2, "outputs": "slots", "checkpoint_cells": "all"}),
        ("llama-server", {"outputs": "slots", "checkpoint_cells": "window", "cache_ram_mib": 8192}),
        ("llama-server -np 2", {"slots": 2, "unified": False}),
        ("llama-server -np 2 -kvu --swa-full -cram 0", {"slots": 2, "unified": True, "swa_full": True}),
        ("llama-bench b9436", {"flash_attention": False, "outputs": "ubatch", "slots": 1}),
        ("llama-bench b9437", {"flash_attention": True, "outputs": "ubatch"}),
        ("ollama 0.30.0", {"build": 9452, "slots": 1, "unified": False, "outputs": "ubatch", "fit": True}),
        ("ollama 0.30.5", {"build": 9509, "outputs": "slots", "drafts": 4}),
        ("llama-cpp-python", {"flash_attention": False, "swa_full": True, "outputs": "ubatch", "context_tokens": 512}),
        ("Jan", {"slots": 3, "unified": True}),
        ("", {"outputs": "ubatch", "slots": 1, "checkpoints": 0}),
    ],
)
def test_a_version_has_the_defaults_of_its_day(text, expected):
    program = program_named(text)
    assert {key: getattr(program, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("text", "error"),
    [("lama", UnknownNameError), ("llama-server new", RefusedError), ("ollama --frobnicate", RefusedError),
     ("llama-server -np", RefusedError), ("llama-server -np x", RefusedError)],
)  # fmt: skip
def test_what_is_no_program_is_refused(text, error):
    with pytest.raises(error):
        program_named(text)


# What llama-server (build of 2026-08, CPU alone, random weights of bench.memory_conformance) logged: cache and states,
# compute buffer, in MiB; 4 slots of one cache, 1 slot, 4 slots of their own, 1 slot without flash attention.
_CONFIGURATIONS = (
    ("llama-server", 4096, True),
    ("llama-server -np 1", 131072, True),
    ("llama-server -np 4", 8192, True),
    ("llama-server -np 1", 8192, False),
)
_LOGGED = {
    "full: llama": ((16.0, 13.01), (512.0, 137.01), (32.0, 11.01), (32.0, 150.01)),
    "hybrid: qwen35": ((14.28, 19.21), (257.57, None), (22.28, 17.21), (17.57, 155.01)),
    "hybrid: lfm2": ((12.08, 13.03), (384.02, 137.02), (24.08, 11.03), (24.02, 150.01)),
    "hybrid: nemotron_h": ((12.23, 20.66), (130.06, 142.57), (16.23, 18.66), (10.06, 149.01)),
    "sliding: gemma3": ((16.5, 15.52), (133.0, 138.02), (28.0, 12.02), (13.0, 150.01)),
    "sliding: gemma2": ((19.5, 15.52), (387.0, 138.02), (36.0, 12.02), (27.0, 153.01)),
    "sliding: cohere2": ((16.5, 16.52), (133.0, 139.02), (28.0, 13.02), (13.0, 154.01)),
    "latent and experts: deepseek2": ((9.0, 18.54), (288.0, 142.54), (18.0, 16.54)),
    "experts: qwen3moe": ((16.0, 10.01), (512.0, 134.01), (32.0, 8.01), (32.0, 150.01)),
    "sliding and experts: gpt-oss": ((10.0, 11.02), (257.5, 134.77), (22.0, 8.77), (17.5, 152.51)),
}


@pytest.mark.parametrize("kind", _LOGGED)
def test_buffers_are_those_that_llama_server_logs(kind):
    shape = KINDS[kind]
    for (program, context, fused), (cache_mib, compute_mib) in zip(_CONFIGURATIONS, _LOGGED[kind], strict=False):
        scenario = Scenario(program=program, context_tokens=context, flash_attention=fused)
        assert sum(block_cache_bytes(shape, cells_of(scenario))) / MIB == pytest.approx(cache_mib, abs=0.011)
        scratch = scratch_bytes(shape, scenario, whole_layout(shape, "cpu"))[HOST]
        assert compute_mib is None or scratch / MIB == pytest.approx(compute_mib, rel=0.025)


# Published start-ups on cards: cache, states, compute buffer of the card, of the host. Sources: shared/data/published.
_PUBLISHED = [
    # before b9410: masks in F32 with a copy in F16, logits of a whole physical batch
    ("qwen3.6-27b", "llama-server b9300", 131072, "Q8_0", 512, 4352.0 + 598.5, 495.0, 276.29),
    ("qwen3-4b", "llama-server b9010 -np 1", 2048, "F16", 512, 288.0, 301.75, None),
    ("qwen3-coder-30b-a3b", "llama-server b8900 -np 16", 65536, "F16", 512, 6144.0, 304.75, 16.02),
    # between: masks in F16, logits as before (llama.cpp #23764, by hand from the row above: 8 x 4096 x 512 / 2 fewer)
    ("qwen3-coder-30b-a3b", "llama-server b9430 -np 16", 65536, "F16", 512, 6144.0, None, 12.02),
    # from b9460: logits of the slots alone
    ("qwen3.5-9b", "llama-server b9849 -np 4", 8192, "F16", 2048, 256.0 + 201.0, None, 72.07),
    ("qwen3.8-27b", "llama-server b9849 -np 1", 32768, "F16", 2048, 2048.0 + 149.62, None, 208.07),
]


@pytest.mark.parametrize("row", _PUBLISHED)
def test_buffers_are_those_of_published_start_ups(row):
    model, program, context, kv_type, ubatch, cache_mib, compute_mib, host_mib = row
    shape = load_card(model).shape
    scenario = Scenario(program=program, context_tokens=context, kv_type=kv_type, ubatch_tokens=ubatch)
    scratch = scratch_bytes(shape, scenario, whole_layout(shape, "cuda"))
    assert sum(block_cache_bytes(shape, cells_of(scenario))) / MIB == pytest.approx(cache_mib, abs=0.02)
    for side, printed in ((0, compute_mib), (HOST, host_mib)):
        if printed is not None:
            assert scratch[side] / MIB == pytest.approx(printed, rel=0.015)


@pytest.mark.parametrize(
    ("model", "layers", "drafts", "printed_mib"), [("qwen3.5-9b", 31, 0, 128.44), ("qwen3.8-27b", 61, 2, 313.47)]
)
def test_the_host_copies_each_view_of_a_state_that_it_keeps(model, layers, drafts, printed_mib):
    """Published start-ups of llama-server b9849 by Vulkan: 2 and 3 recurrent layers with the CPU, 1 and 3 states."""
    weights, placement = weights_of(load_card(model).shape, "Q4_K_M"), Placement(gpu_layers=layers)
    scenario = Scenario(program="llama-server b9849 -np 4 -kvu", context_tokens=8192, ubatch_tokens=2048,
                        placement=placement, draft_tokens=drafts)  # fmt: skip
    layout = layout_of(parts_of(weights, placement), placement, "vulkan")
    assert scratch_bytes(weights.shape, scenario, layout)[HOST] / MIB == pytest.approx(printed_mib, rel=0.002)


@pytest.mark.parametrize(
    ("model", "mib"),
    [("gemma-4-26b-a4b", 200.0), ("gemma-4-31b", 800.0), ("qwen3.6-27b", 149.625), ("qwen3-8b", 0.0)],
)
def test_saved_states_are_those_that_people_saw(model, mib):
    """200 MB a message of Ollama's Gemma 4 26B (ollama#16744), several gigabytes of the 31B (llama.cpp#21690)."""
    shape = load_card(model).shape
    later = {part.label: part for part in later_parts(shape, Scenario(program="ollama", context_tokens=32768))}
    assert later["prompt cache"].anonymous_bytes == 8 * GIB
    assert "--cache-ram" in later["prompt cache"].reason
    saved = later["checkpoints"].anonymous_bytes if "checkpoints" in later else 0
    assert saved == 32 * mib * MIB
    assert not later_parts(shape, Scenario(program="llama-bench"))


def test_a_program_that_fits_by_itself_shortens_the_context_then_moves_layers():
    card, weights = load_device("rtx-4090-desktop"), weights_of(load_card("qwen3-32b").shape, "Q4_K_M")

    shorter = program_fit(weights, Scenario(program="llama-server"), card, context_asked=False)
    asked = program_fit(weights, Scenario(program="llama-server", context_tokens=40960), card, context_asked=True)

    assert shorter is not None
    assert asked is not None
    for fit in (shorter, asked):
        held = sum(p.anonymous_bytes for p in memory_of(weights, fit.scenario, card).parts if p.pool == "vram")
        assert held <= card.pool("vram").usable_bytes.value - 1024 * MIB * 0.99
    assert 4096 < shorter.scenario.context_tokens < 40960
    assert shorter.scenario.context_tokens % 256 == 0
    assert shorter.scenario.placement.gpu_layers == "all"
    assert asked.scenario.context_tokens == 40960
    assert 0 < asked.scenario.placement.gpu_layers < 65
    assert "layers on the card" in asked.why
    assert program_fit(weights, Scenario(program="llama-bench"), card, context_asked=True) is None
