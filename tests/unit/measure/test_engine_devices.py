"""The engine's devices through a child; a profile with a GPU: its pool, its costs, and what both predict."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from harness.core.device import Calibration, TypeCost
from harness.core.model import ModelShape
from harness.core.placement import Placement
from harness.core.scenario import Scenario
from harness.hardware.devices import dump_device, load_device
from harness.measure.engine_devices import engine_devices, with_gpu
from harness.memory.placed import with_cards
from harness.models.names import load_model
from harness.models.weights import weights_of
from harness.runtimes.llamacpp.loaded_devices import GgmlDevice
from harness.speed.estimate import pass_seconds
from harness.speed.passes import Pass
from harness.verbs.check import _engines
from harness.verbs.run import RunCell

CARD = GgmlDevice("Vulkan0", "Some card", "gpu", "vulkan", 7 * 2**30, 8 * 2**30, 1)


def costs(api: str, seconds_per_byte: float, **more: float) -> Calibration:
    """Nothing but reading weights."""
    return Calibration(
        api=api, engine_version="e", thread_count=1, token_overhead_s=0.0, layer_overhead_s=0.0,
        kv_read_bytes_per_s=1e18, attention_flops_per_s=1e18,
        types=(TypeCost(type_name="Q8_0", batch_seconds_per_byte=((1, seconds_per_byte), (512, seconds_per_byte))),),
        **more,
    )  # fmt: skip


@pytest.mark.engine
def test_the_installed_engine_tells_its_devices_through_a_child():
    pytest.importorskip("llama_cpp")
    assert [d.kind for d in engine_devices()].count("cpu") == 1


@pytest.mark.parametrize(("kind", "pool"), [("gpu", "vram"), ("igpu", "ram")])
def test_a_profile_with_a_gpu_is_written_and_read(tmp_path: Path, kind: str, pool: str):
    host = replace(load_device("raspberry-pi-5"), calibrations=(costs("cpu", 1e-9),))
    found = with_gpu(host, CARD._replace(kind=kind), costs("vulkan", 1e-11, link_bytes_per_s=8e9, crossing_s=1e-4))
    (tmp_path / "mine.toml").write_text(dump_device(found))
    again = load_device(str(tmp_path / "mine.toml"))
    assert again.api() == "cpu"  # what a run without an api uses stays first
    assert again.pool_for("vulkan") == pool
    assert again.calibration("vulkan") == found.calibration("vulkan")
    if kind == "gpu":
        # 1 GiB was held at the probe; of that 0.7 are idle use, the rest other programs'
        assert again.pool("vram").usable_bytes.value == pytest.approx(7.3 * 2**30)
        assert again.pool("vram").bandwidth_bytes_per_s.value == pytest.approx(1e11)


def test_measured_costs_add_part_by_part():
    # 1 ns a byte on the CPU, 10 ps on the card, 100 us for the one crossing, activations of 8 x 512 bytes at 8 GB/s
    shape = ModelShape(
        architecture="llama", layer_count=4, hidden_dim=512, vocab_count=1024, head_count=8, kv_head_count=8,
        head_dim=64, feed_forward_dim=1024,
    )  # fmt: skip
    weights = weights_of(shape, "Q8_0")
    host = replace(load_device("raspberry-pi-5"), calibrations=(costs("cpu", 1e-9),))
    device = with_gpu(host, CARD, costs("vulkan", 1e-11, link_bytes_per_s=8e9, crossing_s=1e-4))
    asked = Scenario(api="vulkan", placement=Placement(gpu_layers=3))
    token_s = pass_seconds(weights, device, asked, Pass(1))
    block = sum(t.size_bytes for t in weights.tensors if t.name.startswith("blk.0.") and len(t.dims) > 1)
    head = next(t.size_bytes for t in weights.tensors if t.name == "output.weight")
    assert token_s == pytest.approx(2 * block * 1e-9 + (2 * block + head) * 1e-11 + 1e-4 + 8 * 512 / 8e9, rel=1e-6)


def test_a_check_covers_every_engine_and_a_split():
    cell = RunCell("qwen3-30b-a3b", "", Scenario())
    asked = list(_engines(cell, {"qwen3-30b-a3b": load_model("qwen3-30b-a3b").shape}, {"vulkan": CARD}))
    assert [(s.api, s.placement) for s in asked] == [
        ("cpu", Placement()), ("vulkan", Placement()), ("vulkan", Placement(cpu_moe=24)),
    ]  # fmt: skip
    cell = RunCell("qwen3-8b", "", Scenario())
    *_, split = _engines(cell, {"qwen3-8b": load_model("qwen3-8b").shape}, {"vulkan": CARD})
    assert split.placement == Placement(gpu_layers=19)
    assert next(iter(_engines(cell, {}, {}))).api == "cpu"


def test_cards_add_their_memory_and_nothing_else():
    one, two = load_device("rtx-3090-desktop"), with_cards(load_device("rtx-3090-desktop"), 2)
    assert two.pool("vram").usable_bytes.value == 2 * one.pool("vram").usable_bytes.value
    assert two.pool("ram") == one.pool("ram")
    assert two.pool("vram").bandwidth_bytes_per_s == one.pool("vram").bandwidth_bytes_per_s


@pytest.mark.parametrize(
    ("number", "description", "kind"),
    [
        (0, "AMD EPYC 7763", "cpu"),
        (1, "NVIDIA GeForce RTX 4090", "gpu"),
        (1, "Apple M4 Pro", "igpu"),  # Metal reports a card
        (1, "QUALCOMM Adreno(TM) 750", "igpu"),  # so does OpenCL
        (1, "AMD Radeon Pro 5500M", "gpu"),
        (2, "Intel(R) Arc(tm) Graphics", "igpu"),
        (9, "something new", "accel"),
    ],
)
def test_a_gpu_that_shares_the_hosts_memory_is_no_second_memory(number: int, description: str, kind: str):
    from harness.runtimes.llamacpp.loaded_devices import kind_of

    assert kind_of(number, description) == kind


def test_integrated_gpus_are_left_out_beside_a_card(monkeypatch: pytest.MonkeyPatch):
    from harness.core.errors import RefusedError
    from harness.runtimes.llamacpp import loaded_devices as module

    shared = CARD._replace(name="Vulkan1", kind="igpu")
    monkeypatch.setattr(module, "devices", lambda _lib=None: (shared, CARD))
    assert module.devices_of("vulkan") == (CARD,)
    monkeypatch.setattr(module, "devices", lambda _lib=None: (shared,))
    assert module.devices_of("vulkan") == (shared,)
    monkeypatch.setattr(module, "devices", lambda _lib=None: (shared, CARD._replace(api="cuda")))
    with pytest.raises(RefusedError, match="no device of api 'vulkan'"):
        module.devices_of("vulkan")
