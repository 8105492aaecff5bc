"""Blocks that draft are in the file, and no token of plain decoding reads them, wherever parts of the model lie."""

import pytest

from harness.core.placement import Placement
from harness.core.scenario import Scenario
from harness.hardware.devices import load_device
from harness.memory.peak import memory_of, with_head
from harness.memory.placed import parts_of
from harness.models.names import load_model
from harness.models.weights import read_of, weights_of


@pytest.mark.parametrize("name", ["qwen3-30b-a3b", "llama-3.1-8b"])
@pytest.mark.parametrize("drafting", [0, 1])
@pytest.mark.parametrize(
    "placement",
    [
        Placement(),
        Placement(gpu_layers=0),
        Placement(gpu_layers=9),
        Placement(cpu_moe=7),
        Placement(cpu_moe=99),
    ],
)
def test_parts_read_what_the_whole_reads(name, drafting, placement):
    shape = load_model(name).shape.replace(mtp_layer_count=drafting)
    weights = weights_of(shape, "Q4_K_M")
    assert max(tensor.block for tensor in weights.tensors) == shape.layer_count - 1 + drafting
    plain = read_of(weights_of(shape.replace(mtp_layer_count=0), "Q4_K_M"))
    assert read_of(weights).size_bytes == pytest.approx(plain.size_bytes)
    parts = parts_of(weights, placement)
    assert sum(read_of(part).size_bytes for part in parts[:3] if part.tensors) == pytest.approx(plain.size_bytes)


def test_a_head_on_a_model_with_a_state_in_every_block_has_one_too():
    weights = weights_of(load_model("falcon-h1-7b").shape, "Q4_K_M")
    device = load_device("rtx 3090")
    plain = memory_of(weights, Scenario(), device)
    assert with_head(plain, weights, Scenario(), device).peak_bytes.mid > plain.peak_bytes.mid
