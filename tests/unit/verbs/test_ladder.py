"""The ladder on the real engine and a tiny model: what is kept, what fails, what is refused."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench.tiny_gguf import synthesize_tiny
from harness.core.errors import BadDataError, CouldNotRunError, RefusedError
from harness.core.metric import metric_values
from harness.core.scenario import Scenario
from harness.measure import pipeline
from harness.measure.child import run_child
from harness.measure.pipeline import How
from harness.models.gguf import GgufFile
from harness.records.ladder import rungs_of
from harness.verbs import ladder as ladder_module
from harness.verbs.ladder import LadderRequest, ladder

SPEED = Scenario(context_tokens=128, prompt_tokens=32, new_tokens=8, thread_count=1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize_tiny(tmp_path_factory.mktemp("models") / "tiny.gguf", "Q8_0", feed_forward_dim=512)


@pytest.fixture
def as_if_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GgufFile, "synthetic", False)


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the children's entries, in the order they were started."""
    started: list[str] = []

    def watched(target: str, *arguments: Any, **options: Any) -> Any:
        started.append(target.partition(":")[2])
        return run_child(target, *arguments, **options)

    monkeypatch.setattr(pipeline, "run_child", watched)
    monkeypatch.setattr("harness.measure.child.run_child", watched)
    return started


@pytest.mark.engine
@pytest.mark.usefixtures("as_if_trained")
def test_a_ladder_goes_on_where_it_stopped(tiny: Path, tmp_path: Path, children: list[str]) -> None:
    pytest.importorskip("llama_cpp")
    asked = LadderRequest(chunk_count=1, scenario=SPEED, repetitions=1)
    options: dict[str, Any] = {"keep": tmp_path / "rungs", "how": How(resume=True, folder=tmp_path / "out")}
    records = ladder(tiny, ["F16", "Q4_0"], asked=asked._replace(scenario=None), **options)
    first = rungs_of(records)
    assert children == ["run_quantize", "run_quantize", "run_quality", "run_quantize", "run_quality"]
    assert [r.workload for r in records] == ["quality", "quality"]
    assert records[0].samples[0].phase == "score"
    assert metric_values(records[0], "perplexity") == [first[0].quality.score.perplexity]
    assert [r.speed_outcome for r in first] == ["", ""]
    same, coarse = first
    # F16 made from Q8_0 is what it is compared with.
    assert (same.quality.score.kl_divergence, same.quality.score.top1_agreement_ratio) == (0.0, 1.0)
    change = same.quality.calibration
    assert (change.nll_change.value, change.ece_change.value) == (0.0, 0.0)
    assert change.lost_count + change.gained_count == 0
    assert same.requantized_from == "Q8_0"
    assert coarse.divergence > 0
    # One pass gives both: the perplexity is that of the very rows whose NLLs are compared.
    score, calibration = coarse.quality.score, coarse.quality.calibration
    worse = score.perplexity / same.quality.score.perplexity
    assert np.exp(calibration.nll_change.value) == pytest.approx(worse, rel=1e-9)
    assert calibration.row_count == score.token_count == 255
    assert sum(coarse.quality.types.values()) == pytest.approx(1.0)

    children.clear()
    for path in (tmp_path / "out").iterdir():
        path.unlink()
    second = rungs_of(ladder(tiny, ["F16", "Q4_0"], asked=asked, **options))
    assert len(list((tmp_path / "out").iterdir())) == 4, "quality of before and speed of now"
    assert children == ["run_generate", "run_generate"]  # files and quality are there
    assert all(r.decode_tokens_per_s > 0 and r.speed_outcome in {"ok", "inconclusive"} for r in second)
    assert [r.quality for r in second] == [r.quality for r in first]

    children.clear()
    (wider,) = rungs_of(ladder(tiny, ["Q4_0"], asked=asked._replace(chunk_count=2), **options))
    assert children == ["run_quality"]
    assert wider.quality.calibration.row_count == 2 * 255
    assert wider.decode_tokens_per_s is not None


@pytest.mark.engine
@pytest.mark.usefixtures("as_if_trained")
@pytest.mark.parametrize("spoil", ["folder in the way", "full disk"])
def test_a_rung_that_cannot_be_made_is_a_row(tiny: Path, tmp_path: Path, spoil: str) -> None:
    pytest.importorskip("llama_cpp")
    options: dict[str, Any] = {"asked": LadderRequest(chunk_count=1, scenario=None), "keep": tmp_path}
    ladder(tiny, ["F16"], **options)
    (place,) = tmp_path.iterdir()
    if spoil == "full disk":
        (place / "part.Q4_0.gguf").symlink_to("/dev/full")
    else:
        (place / "part.Q4_0.gguf").mkdir()
    broken, good = rungs_of(ladder(tiny, ["Q4_0", "Q5_0"], **options))
    assert broken.quant == "Q4_0"
    assert broken.outcome != "ok"
    assert broken.quality is None
    assert good.outcome == "ok"


@pytest.mark.engine
@pytest.mark.usefixtures("as_if_trained")
def test_no_room_is_known_before_a_byte_is_written(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llama_cpp")
    real = ladder_module.check_room

    def small_disk(folder: Path, needed_bytes: int, **advice: str) -> None:
        real(folder, needed_bytes if needed_bytes < 4_000_000 else 1 << 60, **advice)

    monkeypatch.setattr(ladder_module, "check_room", small_disk)
    source = tiny.with_name("f32.gguf")
    synthesize_tiny(source, "F16", feed_forward_dim=512)
    # 2.4 M weights: F16 is its own reference; 16 bits take 4.7 MB, 4.5 bits 1.3 MB.
    full, fits = rungs_of(ladder(source, ["F16", "Q4_0"], asked=LadderRequest(chunk_count=1, scenario=None)))
    assert "F16 was not made" in full.outcome
    assert "--keep names a folder on another disk" in full.outcome
    assert fits.outcome == "ok"


@pytest.mark.usefixtures("as_if_trained")
def test_an_interrupted_child_ends_the_ladder(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted = SimpleNamespace(outcome="interrupted", detail="stopped from outside", events=())
    monkeypatch.setattr("harness.measure.child.run_child", lambda *_a, **_k: interrupted)
    with pytest.raises(KeyboardInterrupt):
        ladder(tiny, ["Q4_0"])


def _text(folder: Path) -> Path:
    path = folder / "text.txt"
    path.write_text("words", encoding="utf-8")
    return path


def _nothing(_: Path) -> dict[str, Any]:
    return {}


def _short_text(folder: Path) -> dict[str, Any]:
    return {"text": _text(folder)}


def _latin_text(folder: Path) -> dict[str, Any]:
    path = folder / "latin.txt"
    path.write_bytes(b"caf\xe9")
    return {"text": path}


def _file_for_a_folder(folder: Path) -> dict[str, Any]:
    return {"keep": _text(folder)}


@pytest.mark.engine
@pytest.mark.usefixtures("as_if_trained")
@pytest.mark.parametrize(
    ("options", "quants", "error", "words"),
    [
        (_nothing, ["Q4_K"], RefusedError, "no quantisation 'Q4_K'"),
        (_short_text, ["Q4_0"], RefusedError, "at least 1024 are needed"),
        (_latin_text, ["Q4_0"], BadDataError, "found no UTF-8"),
        (_file_for_a_folder, ["Q4_0"], CouldNotRunError, "cannot make files here"),
    ],
)
def test_refused(
    tiny: Path,
    tmp_path: Path,
    options: Callable[[Path], dict[str, Any]],
    quants: list[str],
    error: type[Exception],
    words: str,
) -> None:
    pytest.importorskip("llama_cpp")
    with pytest.raises(error, match=words):
        ladder(tiny, quants, asked=LadderRequest(scenario=None), **options(tmp_path))


def test_random_weights_have_no_quality(tiny: Path) -> None:
    with pytest.raises(RefusedError, match="synthetic weights"):
        ladder(tiny, ["Q4_0"])


@pytest.mark.usefixtures("as_if_trained")
def test_an_encoder_is_no_language_model(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ladder_module.read_gguf

    def encoder(path: Path) -> GgufFile:
        found = real(path)
        return found._replace(metadata={**found.metadata, "llama.attention.causal": False})

    monkeypatch.setattr(ladder_module, "read_gguf", encoder)
    with pytest.raises(RefusedError, match="not a language model"):
        ladder(tiny, ["Q4_0"])
