"""Folders: moved by variables, made when needed, never by a listing."""

from pathlib import Path

import pytest

from harness.core.errors import CouldNotRunError
from harness.core.paths import as_path, cache_dir, data_files, data_root, home_dir


@pytest.mark.parametrize(("variable", "function"), [("EDGE_HARNESS_CACHE", cache_dir), ("EDGE_HARNESS_HOME", home_dir)])
def test_folders_follow_their_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable, function) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "a" / "b"))

    assert function() == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").is_dir()


def test_a_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGE_HARNESS_CACHE", str(tmp_path / "file" / "cache"))

    with pytest.raises(CouldNotRunError, match="EDGE_HARNESS_CACHE"):
        cache_dir()


def test_listing_makes_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path / "home"))

    assert "iphone-16-pro" in data_files("devices")
    assert not (tmp_path / "home").exists()


def test_the_shipped_folders_are_there() -> None:
    assert data_root("devices").is_dir()
    assert data_root("models").is_dir()


@pytest.mark.parametrize(
    ("ref", "is_path"),
    [
        ("iphone-16-pro", False),
        ("llama-3.1-8b", False),
        ("mine.toml", True),
        ("./mine", True),
        ("model.gguf", True),
        ("/a/config.json", True),
    ],
)
def test_names_and_paths(ref: str, is_path: bool) -> None:
    assert (as_path(ref) is not None) == is_path
