"""A refresh from a hub: a real server, headers of real files, and what is written about them."""

import csv
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bench.made_models import synthesize
from harness.answer.resolve import published_file, resolve_model
from harness.cli import cli
from harness.core.errors import BadDataError, FetchError
from harness.core.model import ModelShape
from harness.measure.pipeline import Listener
from harness.models.hub_ranking import most_downloaded
from harness.models.weights import weights_of
from harness.verbs.refresh import Refreshed, refresh
from tests.unit.models.test_hub import SHAPE, hub, serving

pytest.importorskip("huggingface_hub")

__all__ = ["hub", "serving"]
WIDE = SHAPE.replace(layer_count=3, vocab_count=30_000)
FOREIGN = "org/Zibeline-GGUF"
"""A name that no card answers and that tells no size."""


def ranked(*repos: str, **more: Any) -> bytes:
    """The hub's answer about so many repositories, the first one downloaded most."""
    listed = [{"id": repo, "downloads": 1000 - place, "likes": 7} | more for place, repo in enumerate(repos)]
    return json.dumps(listed).encode()


@pytest.fixture
def offer(hub: Any, tmp_path: Path) -> Iterator[Any]:
    """Put a file of a shape into a repository of the hub."""

    def put(repo: str, shape: ModelShape, quant: str = "Q8_0") -> None:
        file = synthesize(weights_of(shape, quant), tmp_path / "made" / f"model-{quant}.gguf")
        hub.files[repo, file.name] = file.read_bytes()

    put.hub = hub  # type: ignore[attr-defined]
    yield put


def refreshed(tmp_path: Path) -> Refreshed:
    return refresh(10, tmp_path / "home" / "models", Listener())


def test_a_model_that_no_card_answers_gets_one_and_is_answered_without_the_hub(offer: Any, tmp_path: Path) -> None:
    offer(FOREIGN, WIDE)
    offer.hub.ranking = ranked(FOREIGN, cardData={"license": "mit", "base_model": ["org/Zibeline-Base"]})
    told = refreshed(tmp_path)
    assert told.cards == ["zibeline"]
    offer.hub.files.clear()
    for name in ("zibeline", "Zibeline", "org/zibeline", "Zibeline-Base"):
        model = resolve_model(name, "Q8_0")
        assert model.card and model.card.name == "zibeline", name
        assert model.weights.shape.layer_count == WIDE.layer_count
        assert model.weights.file_bytes == pytest.approx(weights_of(WIDE, "Q8_0").file_bytes, rel=0.01)
    card = tomllib.loads((tmp_path / "home" / "models" / "zibeline.toml").read_text())
    assert card["licence"] == "mit"
    assert published_file(resolve_model("zibeline", "Q8_0")) == f"{FOREIGN}:Q8_0"
    assert published_file(resolve_model("zibeline", "Q4_K_M")) == "", "nobody has seen such a file"
    assert card["source"] == f"header of {FOREIGN}/model-Q8_0.gguf, seen {told.seen}"


@pytest.mark.parametrize(
    ("repo", "known_as"),
    [("org/SmolLM2-135M-GGUF", "smollm2-135m"), ("org/Zibeline-9B-GGUF", "guess"), (FOREIGN, "")],
)
def test_a_file_is_held_against_what_its_name_is_answered_with(
    offer: Any, tmp_path: Path, repo: str, known_as: str
) -> None:
    offer(repo, WIDE)
    offer.hub.ranking = ranked(repo)
    [row] = refreshed(tmp_path).repositories
    assert (row.known_as, row.layer_count, row.downloads_a_month) == (known_as, 3, 1000)
    assert bool(row.contradictions) == bool(known_as)
    page = (tmp_path / "home" / "models" / "hub" / "disagreements.md").read_text()
    assert ("names without an answer" in page) == (not known_as)
    assert ("3 layers" in page) == bool(known_as)


def test_a_card_that_ships_is_never_overruled(offer: Any, tmp_path: Path) -> None:
    offer("org/SmolLM2-135M-GGUF", WIDE)
    offer(FOREIGN, WIDE)
    offer.hub.ranking = ranked("org/SmolLM2-135M-GGUF", FOREIGN, cardData={"base_model": "x/SmolLM2-135M"})
    assert refreshed(tmp_path).cards == ["zibeline"]
    assert resolve_model("SmolLM2-135M", None).weights.shape.layer_count == 30


def test_the_next_refresh_says_what_changed_and_renews_its_own_card(
    offer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(FOREIGN, WIDE)
    offer("org/Gone-GGUF", SHAPE)
    offer.hub.ranking = ranked(FOREIGN, "org/Gone-GGUF")
    refreshed(tmp_path)
    offer(FOREIGN, SHAPE)
    offer("org/New-GGUF", SHAPE)
    offer.hub.ranking = ranked(FOREIGN, "org/New-GGUF")
    monkeypatch.setenv("EDGE_HARNESS_CACHE", str(tmp_path / "another cache"))
    told = refreshed(tmp_path)
    changed = "\n".join(told.changed)
    assert "org/New-GGUF is new in the ranking" in changed
    assert "org/Gone-GGUF left the ranking" in changed
    assert f"{FOREIGN}: model-Q8_0.gguf of " in changed
    assert resolve_model("zibeline", "Q8_0").weights.shape.layer_count == SHAPE.layer_count
    table = tmp_path / "home" / "models" / "hub" / "repositories.csv"
    rows = {row["repo"]: row for row in csv.DictReader(table.read_text().splitlines())}
    assert set(rows) == {FOREIGN, "org/New-GGUF", "org/Gone-GGUF"}


def test_what_cannot_be_read_is_a_row_with_its_reason(offer: Any, tmp_path: Path) -> None:
    offer(FOREIGN, WIDE)
    offer.hub.files["org/Broken-GGUF", "model-Q8_0.gguf"] = b"no file of a model" * 99
    offer.hub.ranking = ranked(FOREIGN, "org/Broken-GGUF", "org/Absent-GGUF")
    told = {row.repo: row for row in refreshed(tmp_path).repositories}
    assert told["org/Broken-GGUF"].fault
    assert "404" in told["org/Absent-GGUF"].fault or "no" in told["org/Absent-GGUF"].fault
    assert not told[FOREIGN].fault
    assert told["org/Absent-GGUF"].seen == "", "nobody has seen it"


def test_scores_that_pages_report_are_kept_with_their_source(offer: Any, tmp_path: Path) -> None:
    offer(FOREIGN, WIDE)
    index = [
        {
            "results": [
                {
                    "dataset": {"name": "MMLU-Pro"},
                    "metrics": [{"type": "acc", "value": 41.5}, {"type": "acc", "value": "high"}, 7],
                    "source": {"url": "http://example.org/board"},
                },
                "no result",
            ]
        }
    ]
    offer.hub.ranking = ranked(FOREIGN, **{"model-index": index})
    told = refreshed(tmp_path)
    [row] = csv.DictReader((tmp_path / "home" / "models" / "hub" / "scores.csv").read_text().splitlines())
    assert row == {
        "repo": FOREIGN, "benchmark": "MMLU-Pro", "metric": "acc", "value": "41.5",
        "source": "http://example.org/board", "seen": told.seen,
    }  # fmt: skip


@pytest.mark.parametrize(
    "answer", [b"{}", b"[{}]", b"no JSON", b'[{"id": 7}]', b'[{"id": "a/b", "downloads": "many"}]']
)
def test_a_ranking_that_is_none_is_one_error_and_asked_for_anew(hub: Any, answer: bytes) -> None:
    hub.ranking = answer
    with pytest.raises(BadDataError, match="ranking"):
        most_downloaded(5)
    hub.ranking = ranked("a/b")
    assert [each.repo for each in most_downloaded(5)] == ["a/b"]


@pytest.mark.parametrize("repo", ["../../etc", "a/b/c", "-x/y", "a/../b", "a b/c", "a/b\n"])
def test_a_name_that_is_no_repository_is_not_read(hub: Any, repo: str, tmp_path: Path) -> None:
    hub.ranking = ranked(repo)
    assert most_downloaded(5) == []
    with pytest.raises(FetchError, match="the ranking is empty"):
        refreshed(tmp_path)


def test_the_command_writes_where_it_is_told_and_names_what_it_wrote(offer: Any, tmp_path: Path) -> None:
    offer(FOREIGN, WIDE)
    offer("org/SmolLM2-135M-GGUF", WIDE)
    offer.hub.ranking = ranked(FOREIGN, "org/SmolLM2-135M-GGUF")
    done = CliRunner().invoke(cli, ["models", "refresh", "-n", "2", "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "1 card written: zibeline" in done.output
    assert "3 layers, 30 by its name" in done.output
    assert (tmp_path / "out" / "zibeline.toml").is_file()
    assert str(tmp_path / "out" / "hub" / "disagreements.md") in done.output
