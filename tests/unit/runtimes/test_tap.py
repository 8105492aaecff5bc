"""A tap reads what the graph computes, and what it writes back is what the rest of the graph computes from."""

from pathlib import Path

import numpy as np
import pytest

from bench.tiny_gguf import synthesize_tiny
from harness.core.errors import EngineError
from harness.core.scenario import Scenario
from harness.runtimes.llamacpp import RUNTIME

pytest.importorskip("llama_cpp", reason="the llama extra is not installed")
pytestmark = pytest.mark.engine

SCENARIO = Scenario(context_tokens=64, ubatch_tokens=4, thread_count=1)
TOKENS = [3, 141, 59, 26, 5, 35]
NAME = "l_out-1"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize_tiny(tmp_path_factory.mktemp("tap") / "tiny.gguf", "Q8_0", layer_count=4)


class Recorder:
    def __init__(self, name=NAME, change=None):
        self.name, self.change, self.asked, self.seen = name, change, [], []

    def wants(self, name):
        self.asked.append(name)
        return name == self.name

    def __call__(self, name, values):
        assert name == self.name
        self.seen.append(values)
        return self.change(values) if self.change else None


def run(path, tap, scenario=SCENARIO):
    options = {} if tap is None else {"tap": tap}
    with RUNTIME.open(path, scenario, **options) as session:
        session.decode(TOKENS, position=0, logits="all")
        return session.all_logits().copy()


def test_reading_changes_nothing_and_comes_in_physical_batches(tiny):
    tap = Recorder()
    assert np.array_equal(run(tiny, tap), run(tiny, None))
    assert [v.shape[0] for v in tap.seen] == [4, 2]  # 6 tokens in batches of at most 4
    assert all(np.isfinite(v).all() for v in tap.seen)
    assert len(tap.asked) == len(set(tap.asked))  # each name once


def test_writing_back_the_same_is_the_identity_and_zeros_are_not(tiny):
    clean = run(tiny, None)
    assert np.array_equal(run(tiny, Recorder(change=lambda v: v.copy())), clean)
    zeros = run(tiny, Recorder(change=np.zeros_like))
    assert not np.allclose(zeros, clean)


def test_written_values_are_what_the_next_block_gets(tiny):
    # A residual stream of zeros after the last block is a zero final norm: every logit is then exactly zero.
    logits = run(tiny, Recorder("l_out-3", np.zeros_like))
    assert np.array_equal(logits, np.zeros_like(logits))


def test_attention_probabilities_can_be_read_without_flash_attention(tiny):
    from msgspec.structs import replace

    tap = Recorder("kq_soft_max-0")
    run(tiny, tap, replace(SCENARIO, flash_attention=False))
    first = tap.seen[0]  # [head_count, token_count, cache_tokens]
    assert first.shape[1] == 4
    assert np.allclose(first.sum(-1), 1, atol=1e-3)
    assert np.allclose(np.triu(first[0][:, :4], 1), 0)  # causal


def test_an_exception_of_the_tap_comes_out_of_decode_and_the_session_goes_on(tiny):
    state = {"raise": True}

    def change(values):
        if state["raise"]:
            raise KeyError("mine")

    with RUNTIME.open(tiny, SCENARIO, tap=Recorder(change=change)) as session:
        with pytest.raises(KeyError, match="mine"):
            session.decode(TOKENS, position=0)
        state["raise"] = False
        session.clear()
        session.decode(TOKENS, position=0)
        assert np.isfinite(session.logits()).all()


def test_values_of_another_shape_are_refused(tiny):
    with pytest.raises(EngineError, match="shape"):
        run(tiny, Recorder(change=lambda v: v[:1]))
