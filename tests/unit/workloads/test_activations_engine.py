"""Autoencoders and probes on the real engine with a tiny synthetic model: capture, splice, generation, induction."""

from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest

from bench.tiny_gguf import synthesize_tiny
from harness.errors import EngineError
from harness.ports import EndPass
from harness.runtimes.llamacpp import RUNTIME
from harness.workloads._language.activations import (
    block_name,
    capture,
    norm_limit,
    ordinary,
    scenario_of,
)
from harness.workloads.probe.induction import induction
from harness.workloads.probe.study import sweep
from harness.workloads.sparse_autoencoder.splice import losses
from harness.workloads.sparse_autoencoder.study import gather, study
from harness.workloads.sparse_autoencoder.training import Plan

pytest.importorskip("llama_cpp", reason="the llama extra is not installed")
pytestmark = pytest.mark.engine

TEXT = "\n".join(f'def f{i}(a, b):\n    return a * {i} + b  # says "{i * 7}" (or so)\n' for i in range(90))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize_tiny(tmp_path_factory.mktemp("activations") / "tiny.gguf", "Q8_0", layer_count=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts")
    (path / "code.txt").write_text(TEXT)
    return path


def test_capture_gives_one_row_for_each_token(tiny):
    found = capture(RUNTIME.open, tiny, [TEXT], block_name(1), limit_tokens=1200)
    assert len(found.values) == len(found.tokens) == 1024
    assert found.windows.tolist() == [0, 512]
    assert np.isfinite(found.values).all()
    with pytest.raises(EngineError, match="l_out-9"):
        capture(RUNTIME.open, tiny, [TEXT], block_name(9), limit_tokens=600)


class Whole:
    """Keeps one result and lets the pass go on to its end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.parts: list = []

    def wants(self, name: str) -> bool:
        return name == self.name

    def __call__(self, _name: str, values: np.ndarray) -> None:
        self.parts.append(values)


class Cut(Whole):
    """Keeps one result and ends the pass there."""

    def __call__(self, name: str, values: np.ndarray) -> None:
        super().__call__(name, values)
        raise EndPass


def test_a_pass_that_ends_at_the_layer_gives_the_values_of_a_whole_one(tiny):
    found = capture(RUNTIME.open, tiny, [TEXT], block_name(1), limit_tokens=1200)
    whole, cut, last = Whole("l_out-1"), Cut("l_out-1"), Whole("l_out-2")
    for tap in (whole, cut, last):
        with closing(RUNTIME.open(tiny, scenario_of(1), tap=tap)) as session:
            for start in found.windows:
                session.clear()
                session.decode(found.tokens[start : start + 512].tolist(), position=0, logits="none")
    assert np.array_equal(np.concatenate(whole.parts), found.values)
    assert np.array_equal(np.concatenate(cut.parts), found.values)
    assert len(last.parts) == 2


def test_a_pass_that_ended_early_leaves_nothing_behind(tiny):
    class Early(Whole):
        ends = True

        def wants(self, name: str) -> bool:
            return name in {"l_out-0", "l_out-2"}

        def __call__(self, name: str, values: np.ndarray) -> None:
            self.parts.append(name)
            if self.ends and name == "l_out-0":
                raise EndPass

    tap = Early("")
    with closing(RUNTIME.open(tiny, scenario_of(1), tap=tap)) as session:
        tokens = session.tokenize(TEXT)[:40]
        session.decode(tokens, position=0, logits="none")
        assert tap.parts == ["l_out-0"]  # nothing later was computed
        tap.ends = False
        session.clear()
        session.decode(tokens, position=0)
        again = session.logits().copy()
    with closing(RUNTIME.open(tiny, scenario_of(1))) as session:
        session.decode(tokens, position=0)
        assert np.array_equal(session.logits(), again)


def test_losses_of_the_identity_and_of_the_ablations(tiny):
    captured = capture(RUNTIME.open, tiny, [TEXT], block_name(1), limit_tokens=600)
    limit = norm_limit(captured.values)
    kept = captured.values[ordinary(captured.values, limit)]
    found = losses(RUNTIME.open, tiny, TEXT[:1500], block_name(1), np.copy, kept.mean(axis=0), limit)
    assert found.tapped == found.clean  # reading changes nothing
    assert found.spliced == found.clean  # neither does writing the same values back
    assert found.zeroed != found.clean != found.averaged
    # A synthetic model predicts by chance: where an ablation costs nothing there is no share to recover.
    for ratio, ablated in ((found.recovered_zero_ratio, found.zeroed), (found.recovered_mean_ratio, found.averaged)):
        assert ratio == (1.0 if ablated > found.clean else None)


def test_study_from_text_to_features(tiny, folder, tmp_path):
    material = gather(RUNTIME.open, tiny, folder, layer=1, least_tokens=0, cache=tmp_path)
    assert len(list(tmp_path.glob("activations-*.npz"))) == 2
    again = gather(RUNTIME.open, tiny, folder, least_tokens=0, cache=tmp_path)
    assert again.layer == 1  # the middle one of three
    assert np.array_equal(again.train.values, material.train.values)
    more = gather(RUNTIME.open, tiny, folder, layer=1, least_tokens=len(material.train.tokens) + 1500, cache=tmp_path)
    assert len(more.train.tokens) == len(material.train.tokens) + 1024  # two whole windows of further text
    assert np.array_equal(more.held_out.values, material.held_out.values)
    plan = Plan(feature_count=64, active_count=4, step_count=30, batch_tokens=128)
    _, report = study(RUNTIME.open, tiny, material, plan=plan)
    assert report.tensor == "l_out-1"
    told = msgspec.json.decode(msgspec.json.encode(report))
    assert told["held_out"]["active_count"] <= 4
    assert 0 < told["held_out"]["fvu_ratio"] < 1
    assert told["generation"]["plain_s"] > 0
    assert {"before", "token", "after", "activation"} <= set(told["features"][0]["contexts"][0])


@pytest.mark.parametrize("layer", [1, 2])
def test_probes_of_a_real_engine(tiny, folder, layer):
    (found,) = sweep(RUNTIME.open, tiny, folder, layers=[layer], limit_tokens=3000)  # the last layer of three too
    assert found.layer == layer
    assert {r.name for r in found.reports} | set(found.skipped) == {
        "in parentheses",
        "in quotes",
        "in indented line",
        "word goes on",
        "next token uncertain",
    }
    assert found.reports
    for report in found.reports:
        assert 0 <= report.accuracy.low <= report.accuracy.mid <= report.accuracy.high <= 1


def test_a_model_without_training_has_no_induction_heads(tiny):
    found, heads = induction(RUNTIME.open, tiny, length_tokens=24, sequence_count=2)
    # random weights: the second copy is as hard as the first, and no head looks back on purpose
    assert abs(found.score) < 2.0
    assert found.strong_count == 0
    assert found.copied_ratio < 0.3
    assert found.uniform_score == pytest.approx(sum(1 / (i + 1) for i in range(24, 48)) / 24)
    assert found.heads == tuple(heads[:10])
