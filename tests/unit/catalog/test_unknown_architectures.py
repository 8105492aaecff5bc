"""Files of architectures that nobody here knows: tensors and metadata tell the shape, or the file is refused."""

from pathlib import Path

import pytest

from harness.catalog._gguf_shape import shape_from_metadata
from harness.catalog.gguf_write import metadata_of
from harness.catalog.names import load_model
from harness.domain.model import ModelShape
from harness.domain.scenario import Scenario
from harness.errors import BadDataError
from harness.predict.kv_cache import kv_cache_bytes
from harness.predict.weights import weights_of


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
