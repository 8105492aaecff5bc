"""MLX by mlx-lm, where it is installed (it runs on Linux too, on the CPU): a tiny Llama with random weights."""

import json
from pathlib import Path

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core", reason="mlx-lm is not installed")
pytest.importorskip("mlx_lm")
pytestmark = pytest.mark.engine

from harness.core.errors import BadDataError, EngineError, RefusedError  # noqa: E402
from harness.core.scenario import Scenario  # noqa: E402
from harness.measure.jobs import generate  # noqa: E402
from harness.measure.pipeline import How, Pipeline  # noqa: E402
from harness.measure.protocol import GenerateJob  # noqa: E402
from harness.runtimes.mlx import RUNTIME  # noqa: E402
from harness.verbs.locate import obtain  # noqa: E402

CONFIG = {
    "model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "num_attention_heads": 4,
    "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "vocab_size": 96, "rope_theta": 1e4, "tie_word_embeddings": True,
    "eos_token_id": [2, 3],
}  # fmt: skip
SCENARIO = Scenario(context_tokens=64, prompt_tokens=8, new_tokens=4, ubatch_tokens=5, thread_count=1)
TOKENS = [1, 17, 40, 5, 90, 33, 8]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mlx.utils import tree_flatten
    from mlx_lm.models.llama import Model, ModelArgs

    where = tmp_path_factory.mktemp("mlx") / "tiny-llama"
    where.mkdir()
    mx.random.seed(3)
    model = Model(ModelArgs.from_dict(CONFIG))
    mx.save_safetensors(str(where / "model.safetensors"), dict(tree_flatten(model.parameters())))
    (where / "config.json").write_text(json.dumps(CONFIG))
    return where


@pytest.fixture
def session(folder: Path):
    with RUNTIME.open(folder / "model.safetensors", SCENARIO) as opened:
        yield opened


@pytest.fixture(scope="module")
def expected(folder: Path) -> np.ndarray:
    """Logits of the library itself, all tokens in one pass without a cache."""
    from mlx_lm.utils import load_model

    model, _ = load_model(folder)
    return np.array(model(mx.array([TOKENS]))[0].astype(mx.float32))


def test_logits_are_the_librarys_own(session, expected) -> None:
    session.decode(TOKENS, position=0, logits="all")  # two steps of 5 and 2 tokens
    assert session.all_logits().shape == (7, 96)
    assert np.allclose(session.all_logits(), expected, atol=1e-3)


def test_token_by_token_cut_and_again(session, expected) -> None:
    session.decode(TOKENS[:6], position=0, logits="none")
    session.decode(TOKENS[6:], position=6)
    assert np.allclose(session.logits(), expected[6], atol=1e-3)
    assert session.greedy() == int(expected[6].argmax())
    session.truncate(3)
    assert session.length() == 3
    session.decode(TOKENS[3:], position=3, logits="all")
    assert np.allclose(session.all_logits(), expected[3:], atol=1e-3)
    session.clear()
    assert session.length() == 0


def test_what_it_cannot_do_is_said(session, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="only sequence 0"):
        session.decode([1], position=0, sequence=1)
    with pytest.raises(EngineError, match="no room"):
        session.decode([5] * 65, position=0)
    with pytest.raises(RefusedError, match="cannot share"):
        session.fork(0, 1)
    with pytest.raises(BadDataError, match=r"tokenizer\.json"):
        session.tokenize("a")
    with pytest.raises(RefusedError, match="cache of type Q8_0"):
        RUNTIME.open(folder, Scenario(kv_type="Q8_0"))
    with pytest.raises(EngineError, match="mlx-lm would not load"):
        RUNTIME.open(tmp_path, SCENARIO)


def test_folder_is_found_and_measured(folder: Path, tmp_path: Path) -> None:
    located = obtain(str(folder), "")
    assert (located.name, located.format) == ("tiny-llama", "mlx")
    job = GenerateJob(path=str(located.path), scenario=SCENARIO, runtime="mlx", repetitions=1, patience_s=0.1)
    planned = generate.plan(job, None, name=located.name)
    with Pipeline(How(keep=False, folder=tmp_path)) as pipeline:
        record = pipeline.measure(planned)
    assert record.outcome in {"ok", "inconclusive"}, record.detail
    assert {"load @ cold", "pp8"} <= {s.label for s in record.samples}
