"""OpenVINO GenAI, where it is installed: the shipped model's file as it is, beside llama.cpp's answers."""

from pathlib import Path

import pytest

pytest.importorskip("openvino_genai", reason="openvino-genai is not installed")
pytestmark = pytest.mark.engine

from harness.core.errors import EngineError, FetchError, RefusedError  # noqa: E402
from harness.core.scenario import Scenario  # noqa: E402
from harness.runtimes.llamacpp import RUNTIME as LLAMACPP  # noqa: E402
from harness.runtimes.openvino import RUNTIME  # noqa: E402
from harness.testing import check_runtime, check_simple_runtime  # noqa: E402
from harness.verbs.locate import obtain  # noqa: E402

SCENARIO = Scenario(context_tokens=512, prompt_tokens=8, new_tokens=4, thread_count=2)


@pytest.fixture(scope="module")
def smollm() -> Path:
    try:
        return obtain("smollm2-135m", "").path
    except FetchError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def loaded(smollm: Path):
    return RUNTIME.load(smollm, SCENARIO)


def test_it_keeps_the_promises_of_an_engine_of_three_methods(smollm: Path) -> None:
    check_simple_runtime(RUNTIME, smollm)


def test_its_session_keeps_the_promises_of_the_port(smollm: Path) -> None:
    check_runtime(RUNTIME, smollm, tolerance=0.1)  # activations in eight bits: a batch rounds otherwise than a step


def test_its_text_is_cut_into_llamacpps_tokens_and_predicted_nearly_as_well(smollm: Path) -> None:
    """Measured: a perplexity of 10.4 for 9.1, since it rounds the offsets of Q4_1's blocks to whole steps."""
    text = "The capital of France is Paris, and the capital of Italy is"
    with LLAMACPP.open(smollm, SCENARIO) as session, RUNTIME.open(smollm, SCENARIO) as own:
        ids = session.tokenize(text, add_special=False)
        assert own.tokenize(text, add_special=False) == ids
        assert own.detokenize(ids) == text
        for one in (session, own):
            one.decode(ids, position=0)
        assert own.detokenize([own.greedy()]) == session.detokenize([session.greedy()]) == " Rome"


def test_the_same_prompt_again_is_read_again(loaded) -> None:
    """Its prefix cache is off: two readings of 256 tokens cost alike, where a cached one takes a hundredth."""
    import time

    took_s = []
    ids = [(7 * step) % 40_000 for step in range(256)]
    for _ in range(4):
        begin_s = time.perf_counter()
        next(iter(RUNTIME.generate(loaded, ids, 1)))
        took_s.append(time.perf_counter() - begin_s)
    assert min(took_s[1:]) > max(took_s[1:]) / 10


def test_what_it_cannot_do_is_refused(smollm: Path, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="no cache of type Q4_0; it has F16, Q8_0"):
        RUNTIME.load(smollm, SCENARIO.replace(kv_type="Q4_0"))
    with pytest.raises(RefusedError, match="no api 'metal'; it has cpu"):
        RUNTIME.load(smollm, SCENARIO.replace(api="metal"))
    (tmp_path / "openvino_model.xml").write_text("<no graph")
    with pytest.raises(EngineError, match=r"would not load openvino_model\.xml"):
        RUNTIME.load(tmp_path / "openvino_model.xml", SCENARIO)
