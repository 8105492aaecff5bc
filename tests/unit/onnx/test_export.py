"""An export by the real exporters, where they are; what it refuses, everywhere."""

import sys
from pathlib import Path

import pytest

from harness.errors import BadDataError, CouldNotRunError, RefusedError
from harness.onnx.export import export


def test_a_folder_without_a_configuration_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(BadDataError, match=r"no config\.json"):
        export(tmp_path, tmp_path / "made", "fp32")


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    made = tmp_path / "made"
    made.mkdir()

    with pytest.raises(RefusedError, match="name a new folder"):
        export(tmp_path, made, "fp32")


def test_a_missing_exporter_is_named_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child is this interpreter without its packages."""
    (tmp_path / "config.json").write_text("{}")
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))

    with pytest.raises(CouldNotRunError, match=r"edge-harness\[export\]"):
        export(tmp_path, tmp_path / "made", "int4")

    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "python"]


@pytest.mark.parametrize(("quant", "quantization"), [("fp32", "fp32"), ("int4", "MatMulNBits")])
def test_a_small_llama_becomes_a_graph_that_answers_as_torch_does(
    tmp_path: Path, quant: str, quantization: str
) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("optimum.exporters.onnx", reason="the export extra is not installed")
    import numpy as np

    from harness.onnx.session import OnnxSession

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.LlamaConfig(vocab_size=96, num_key_value_heads=2, **sizes)
    model = transformers.LlamaForCausalLM(config).eval()
    model.save_pretrained(tmp_path / "checkpoint")

    path = export(tmp_path / "checkpoint", tmp_path / "made", quant)

    tokens = np.array([[1, 2, 3, 4, 5]])
    feeds = {
        "input_ids": tokens,
        "attention_mask": np.ones_like(tokens),
        "position_ids": np.arange(5)[None],
        **{
            f"past_key_values.{layer}.{kind}": np.zeros((1, 2, 0, 16), np.float32)
            for layer in range(2)
            for kind in ("key", "value")
        },
    }
    with OnnxSession(path, thread_count=1) as session:
        logits = session.run(feeds)[0]
    with torch.no_grad():
        expected = model(torch.from_numpy(tokens)).logits.numpy()
    error = np.abs(logits - expected).max() / np.abs(expected).max()
    assert error < (1e-4 if quant == "fp32" else 0.2)
