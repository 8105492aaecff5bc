"""Files of architectures that nobody here knows: tensors and metadata tell the shape, or the file is refused."""

from pathlib import Path

import pytest

from bench.made_models import metadata_of
from harness.core.errors import BadDataError
from harness.core.model import ModelShape
from harness.core.scenario import Scenario
from harness.hardware.devices import load_device
from harness.memory.kv_cache import kv_cache_bytes
from harness.memory.splits import best_split
from harness.models.gguf_shape import shape_from_metadata
from harness.models.names import load_model
from harness.models.shape_check import check_shape
from harness.models.weights import weights_of
from harness.speed.estimate import predict_speed


def renamed(name: str, *, with_flags: bool = False) -> tuple[ModelShape, ModelShape]:
    """The shape of a card, and what is read of its file under the name of an architecture that nobody knows."""
    shape = load_model(name).shape
    own = f"{shape.architecture}."
    metadata = {
        f"zzz.{key.removeprefix(own)}" if key.startswith(own) else key: value
        for key, value in metadata_of(shape, name=name, quant="Q4_K_M").items()
    }
    metadata["general.architecture"] = "zzz"
    if with_flags:
        metadata["zzz.attention.sliding_window_pattern"] = tuple(kind == "sliding" for kind in shape.layer_kinds)
    return shape, shape_from_metadata(Path(name), "zzz", metadata, weights_of(shape, "Q4_K_M").tensors)


@pytest.mark.parametrize(
    ("name", "with_flags"),
    [
        ("qwen3-8b", False),
        ("qwen3-30b-a3b", False),
        ("glm-4.7-flash", False),  # latent
        ("glm-5", False),  # with an indexer
        ("qwen3.5-9b", False),  # gated delta nets
        ("granite-4.0-h-tiny", False),
        ("nemotron-3-nano-30b-a3b", False),  # blocks of one part
        ("gemma-4-26b-a4b", False),
        ("laguna-xs-2.1", True),
        ("gemma-3-12b", True),
    ],
)
def test_a_cache_is_that_of_the_architecture_by_its_own_name(name: str, with_flags: bool) -> None:
    known, found = renamed(name, with_flags=with_flags)
    scenario = Scenario(context_tokens=32_768)

    assert found.architecture == "zzz"
    assert found.layer_kinds == known.layer_kinds
    assert kv_cache_bytes(found, scenario) == pytest.approx(kv_cache_bytes(known, scenario), rel=0.02)
    assert (found.experts is None) == (known.experts is None)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gemma-3-12b", "which layers of this unknown architecture slide"),
        ("gpt-oss-20b", "which layers of this unknown architecture slide"),
        ("falcon-h1-7b", "attention and a state in one block"),
    ],
)
def test_what_the_file_does_not_tell_is_refused_rather_than_guessed(name: str, reason: str) -> None:
    with pytest.raises(BadDataError, match=reason):
        renamed(name)


@pytest.mark.parametrize("stray", ["blk.1e9.attn_q.weight", "blk.-7.x.weight", "blk.x", "blk.99999999999999999999.x"])
def test_a_strange_name_of_a_tensor_is_in_no_block(stray: str) -> None:
    weights = weights_of(load_model("qwen3-30b-a3b").shape, "Q4_K_M")
    tensor = weights.tensors[-1].replace(name=stray)
    found = weights.replace(tensors=(*weights.tensors, tensor))
    device = load_device("2x rtx 3060 12gb + 64gb ddr5")
    assert best_split(found, device, Scenario()) is not None
    assert predict_speed(found, device, Scenario()).decode_tokens_per_s.mid > 0


def test_several_blocks_that_draft_are_split_over_cards() -> None:
    shape = load_model("qwen3-30b-a3b").shape.replace(mtp_layer_count=3)
    device = load_device("2x rtx 3060 8gb + 64gb ddr5")
    assert best_split(weights_of(shape, "Q4_K_M"), device, Scenario()) is not None


def test_a_file_of_states_beside_attention_must_tell_them() -> None:
    shape = load_model("falcon-h1-7b").shape.replace(recurrent=None)
    with pytest.raises(BadDataError, match="the model has recurrent layers"):
        check_shape(shape, "a file")


def test_blocks_are_those_with_a_number() -> None:
    shape = load_model("qwen3-30b-a3b").shape
    tensors = weights_of(shape, "Q4_K_M").tensors
    dims = {tensor.name.replace("blk.", "blk.x"): tensor.dims for tensor in tensors}
    with pytest.raises(BadDataError, match="at most 0, the blocks"):
        check_shape(shape, "a file", dims)
