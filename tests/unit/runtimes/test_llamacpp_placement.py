"""Devices and placements on the real engine; with the Vulkan build (any driver) also what a split does."""

from pathlib import Path

import numpy as np
import pytest

from bench.made_models import synthesize
from harness.core.errors import RefusedError
from harness.core.model import Experts, ModelShape
from harness.core.placement import Placement
from harness.core.prediction import ENGINE_BUFFERS
from harness.core.scenario import Scenario
from harness.hardware.devices import load_device
from harness.memory.peak import memory_of
from harness.models.gguf import read_gguf
from harness.models.weights import weights_of

pytest.importorskip("llama_cpp")
pytestmark = pytest.mark.engine

from harness.runtimes.llamacpp.loaded_devices import apis, buffers, devices, devices_of  # noqa: E402
from harness.runtimes.llamacpp.session import LlamaSession  # noqa: E402

DENSE = ModelShape(
    architecture="llama", layer_count=6, hidden_dim=512, vocab_count=2048, head_count=8, kv_head_count=4, head_dim=64,
    feed_forward_dim=1536, context_max_tokens=4096,
)  # fmt: skip
MIXTURE = ModelShape(
    architecture="olmoe", layer_count=6, hidden_dim=256, vocab_count=2048, head_count=4, kv_head_count=4, head_dim=64,
    feed_forward_dim=0, context_max_tokens=4096, qk_norm=True,
    experts=Experts(expert_count=16, used_count=3, feed_forward_dim=256),
)  # fmt: skip
PROMPT = [265, 309, 414, 320, 509, 414, 77, 1200]


def test_the_engine_lists_its_devices():
    found = devices()
    cpu = [d for d in found if d.kind == "cpu"]
    assert len(cpu) == 1 and cpu[0].api == "cpu" and cpu[0].total_bytes > 2**28
    assert "cpu" in apis()
    assert devices_of("cpu") == () == devices_of("")


def test_an_api_that_is_not_there_is_refused_with_the_command_that_adds_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "harness.runtimes.llamacpp.loaded_devices.pull_command", lambda api: f"engines pull --api {api}"
    )
    with pytest.raises(RefusedError, match=r"sees no device of api 'rocm'.*an engine for it: engines pull --api rocm"):
        devices_of("rocm")


def test_buffers_are_read_from_the_engines_own_words():
    lines = [
        "load_tensors:   CPU_Mapped model buffer size =    92.10 MiB",
        "load_tensors:      Vulkan0 model buffer size =    47.71 MiB",
        "llama_kv_cache:    Vulkan0 KV buffer size =     6.75 MiB",
        "sched_reserve: Vulkan_Host compute buffer size =     0.82 MiB",
        "~llama_context:    Vulkan0 compute buffer size is  24.5649 MiB, matches expectation",
    ]
    found = [(b.device, b.part, b.size_bytes) for b in buffers(lines)]
    assert found == [
        ("CPU_Mapped", "weights", round(92.10 * 2**20)),
        ("Vulkan0", "weights", round(47.71 * 2**20)),
        ("Vulkan0", "kv cache", round(6.75 * 2**20)),
        ("Vulkan_Host", "compute buffer", round(0.82 * 2**20)),
    ]


@pytest.fixture(scope="module", params=["dense", "mixture"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = DENSE if request.param == "dense" else MIXTURE
    return synthesize(weights_of(shape, "Q8_0"), tmp_path_factory.mktemp("m") / f"{request.param}.gguf")


def _scenario(api: str, placement: Placement = Placement()) -> Scenario:  # noqa: B008 - frozen
    return Scenario(context_tokens=512, ubatch_tokens=64, thread_count=1, mmap=False, repack=False, api=api,
                    placement=placement)  # fmt: skip


def _logits(path: Path, scenario: Scenario) -> tuple[np.ndarray, tuple]:
    with LlamaSession(path, scenario, batch_tokens=64) as session:
        session.decode(PROMPT, position=0)
        rows = [session.logits().copy()]
        for step in range(3):
            session.decode([PROMPT[step]], position=len(PROMPT) + step)
            rows.append(session.logits().copy())
        return np.array(rows), session.buffers


def test_the_cpu_is_the_cpu(model: Path):
    _, found = _logits(model, _scenario("cpu", Placement(gpu_layers=3)))
    assert found
    assert {b.device.split("_")[0] for b in found} == {"CPU"}


vulkan = [
    pytest.mark.vulkan,
    pytest.mark.skipif("vulkan" not in apis(), reason="this llama.cpp has no Vulkan device: see bench/vulkan_wheel.sh"),
]


def _vulkan(function):
    for mark in vulkan:
        function = mark(function)
    return function


@_vulkan
@pytest.mark.parametrize(
    "placement",
    [
        Placement(),
        Placement(gpu_layers=2),
        Placement(gpu_layers=4),
        Placement(cpu_moe=3),
        Placement(gpu_layers=4, cpu_moe=6),
        Placement(kv_on_gpu=False),
    ],
    ids=["all", "third", "two thirds", "experts of half", "both", "cache on CPU"],
)
def test_a_split_computes_the_same_and_lies_where_it_was_predicted(model: Path, placement: Placement):
    reference, _ = _logits(model, _scenario("cpu"))
    found, laid = _logits(model, _scenario("vulkan", placement))
    scale = np.abs(reference).max()
    assert np.abs(found - reference).max() / scale < 0.05  # other kernels, other rounding
    memory = memory_of(read_gguf(model).weights(), _scenario("vulkan", placement), load_device("rtx-4060-desktop"))
    for pool in ("vram", "ram"):
        host = [b.size_bytes for b in laid if b.on_host == (pool == "ram")]
        mine = (part for part in memory.parts if part.pool == pool and part.kind in ENGINE_BUFFERS)
        told = sum(part.anonymous_bytes for part in mine)
        assert told == pytest.approx(sum(host), rel=0.03, abs=20_000), (pool, laid)  # lines of 0.01 MiB


@_vulkan
def test_more_cards_than_there_are_are_refused(model: Path):
    with pytest.raises(RefusedError, match="cards"):
        LlamaSession(model, _scenario("vulkan", Placement(tensor_split=(1, 1, 1))))
