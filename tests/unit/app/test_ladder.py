"""The ladder on the real engine and a tiny model: what is kept, what fails, what is refused."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench.tiny_gguf import synthesize_tiny
from harness.app import ladder as ladder_module
from harness.app.ladder import Asked, ladder
from harness.catalog.gguf import GgufFile
from harness.domain.scenario import Scenario
from harness.errors import BadDataError, CouldNotRunError, RefusedError
from harness.measure import pipeline
from harness.measure.child import run_child
from harness.measure.pipeline import How
from harness.records.ladder import Rung, reference_of
from harness.records.metrics import metric_values
from harness.stats.calibration.paired import calibration_change

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
    return started


def test_the_references_figures_are_a_rungs_less_its_change() -> None:
    rng = np.random.default_rng(1)
    nll = rng.exponential(size=(2, 300))
    sides = [(np.full(300, p), rng.random(300) < 0.5, loss) for p, loss in zip((0.6, 0.7), nll, strict=True)]
    found = reference_of(
        [Rung(quant="Q2_K", outcome="failed"), Rung(quant="Q4_0", calibration=calibration_change(*sides))]
    )
    assert found is not None
    assert found.token_count == 300
    assert found.nll == pytest.approx(nll[0].mean())
    assert found.perplexity == pytest.approx(np.exp(nll[0].mean()))
    assert found.accuracy == pytest.approx(sides[0][1].mean())
    assert found.ece == pytest.approx(abs(0.6 - sides[0][1].mean()))  # all rows lie in one bin
    assert reference_of([Rung(quant="Q2_K", outcome="failed")]) is None


@pytest.mark.engine
@pytest.mark.usefixtures("as_if_trained")
def test_a_ladder_goes_on_where_it_stopped(tiny: Path, tmp_path: Path, children: list[str]) -> None:
    pytest.importorskip("llama_cpp")
    asked = Asked(chunk_count=1, scenario=SPEED, repetitions=1)
    options: dict[str, Any] = {"keep": tmp_path, "how": How(resume=True)}
    climbed = ladder(tiny, ["F16", "Q4_0"], asked=asked._replace(scenario=None), **options)
    first = climbed.ladder
    assert children == ["run_quantize", "run_try", "run_quantize", "run_quality", "run_quantize", "run_quality"]
    assert [r.workload for r in climbed.records] == ["quality", "quality"]
    assert climbed.records[0].samples[0].phase == "score"
    assert metric_values(climbed.records[0], "perplexity") == [first.rungs[0].quality.perplexity]
    assert [r.speed_outcome for r in first.rungs] == ["", ""]
    same, coarse = first.rungs
    # F16 made from Q8_0 is what it is compared with.
    assert (same.quality.kl_divergence, same.quality.top1_agreement_ratio) == (0.0, 1.0)
    assert (same.calibration.nll_change.value, same.calibration.ece_change.value) == (0.0, 0.0)
    assert same.calibration.lost_count + same.calibration.gained_count == 0
    assert same.requantized_from == "Q8_0"
    assert coarse.quality.kl_divergence > 0
    # One pass gives both: the perplexity is that of the very rows whose NLLs are compared.
    assert np.exp(coarse.calibration.nll) == pytest.approx(coarse.quality.perplexity, rel=1e-9)
    assert coarse.calibration.row_count == coarse.quality.token_count == 255
    assert sum(coarse.types.values()) == pytest.approx(1.0)
    assert first.reference.nll == pytest.approx(same.calibration.nll)

    children.clear()
    second = ladder(tiny, ["F16", "Q4_0"], asked=asked, **options).ladder
    assert children == ["run_generate", "run_generate"]  # files and quality are there
    assert all(r.decode_tokens_per_s > 0 and r.speed_outcome in {"ok", "inconclusive"} for r in second.rungs)
    assert [r.calibration for r in second.rungs] == [r.calibration for r in first.rungs]

    children.clear()
    wider = ladder(tiny, ["Q4_0"], asked=asked._replace(chunk_count=2), **options).ladder
    assert children == ["run_try", "run_quality"]
    assert wider.rungs[0].calibration.row_count == 2 * 255
    assert wider.rungs[0].decode_tokens_per_s is not None


@pytest.mark.engine
@pytest.mark.usefixtures("as_if_trained")
@pytest.mark.parametrize("spoil", ["folder in the way", "full disk"])
def test_a_rung_that_cannot_be_made_is_a_row(tiny: Path, tmp_path: Path, spoil: str) -> None:
    pytest.importorskip("llama_cpp")
    options: dict[str, Any] = {"asked": Asked(chunk_count=1, scenario=None), "keep": tmp_path}
    ladder(tiny, ["F16"], **options)
    (place,) = tmp_path.iterdir()
    if spoil == "full disk":
        (place / "Q4_0.gguf.part").symlink_to("/dev/full")
    else:
        (place / "Q4_0.gguf.part").mkdir()
    broken, good = ladder(tiny, ["Q4_0", "Q5_0"], **options).ladder.rungs
    assert "Q4_0" in broken.outcome
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
    full, fits = ladder(source, ["F16", "Q4_0"], asked=Asked(chunk_count=1, scenario=None)).ladder.rungs
    assert "F16 was not made" in full.outcome
    assert "--keep names a folder on another disk" in full.outcome
    assert fits.outcome == "ok"


@pytest.mark.usefixtures("as_if_trained")
def test_an_interrupted_child_ends_the_ladder(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted = SimpleNamespace(outcome="interrupted", detail="stopped from outside", events=())
    monkeypatch.setattr(pipeline, "run_child", lambda *_a, **_k: interrupted)
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


def _no_folder(folder: Path) -> dict[str, Any]:
    return {"folder": folder / "absent"}


def _two_folders(folder: Path) -> dict[str, Any]:
    return {"folder": folder, "keep": folder}


@pytest.mark.engine
@pytest.mark.usefixtures("as_if_trained")
@pytest.mark.parametrize(
    ("options", "quants", "error", "words"),
    [
        (_nothing, ["Q4_K"], RefusedError, "no quantisation 'Q4_K'"),
        (_short_text, ["Q4_0"], RefusedError, "at least 1024 are needed"),
        (_latin_text, ["Q4_0"], BadDataError, "found no UTF-8"),
        (_file_for_a_folder, ["Q4_0"], CouldNotRunError, "cannot make files here"),
        (_no_folder, ["Q4_0"], CouldNotRunError, "cannot make files here"),
        (_two_folders, ["Q4_0"], RefusedError, "give one of them"),
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
        ladder(tiny, quants, asked=Asked(scenario=None), **options(tmp_path))


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
    with pytest.raises(RefusedError, match="no language model"):
        ladder(tiny, ["Q4_0"])
