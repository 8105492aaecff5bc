"""The hash of a file is that of its bytes; it is read again when the file changes, and only then."""

import os
from pathlib import Path

import pytest

from harness.core.errors import BadDataError
from harness.models.file_hash import sha256_of

# FIPS 180-2, appendix B.1, and the hash of no bytes.
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_HARNESS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.write_bytes(b"abc")
    return path


def test_a_file_is_read_again_when_it_changes(model: Path) -> None:
    assert sha256_of(model) == ABC
    model.write_bytes(b"")
    assert sha256_of(model) == EMPTY


def test_a_file_that_did_not_change_is_not_read_again(model: Path) -> None:
    assert sha256_of(model) == ABC
    before = model.stat()
    with model.open("r+b") as file:
        file.write(b"xyz")
    os.utime(model, ns=(before.st_atime_ns, before.st_mtime_ns))  # as if nothing had been written

    assert sha256_of(model) == ABC


def test_a_file_that_gets_another_name_is_not_read_again(model: Path) -> None:
    assert sha256_of(model) == ABC
    before = model.stat()
    with model.open("r+b") as file:
        file.write(b"xyz")
    os.utime(model, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert sha256_of(model.rename(model.with_name("other.gguf"))) == ABC


@pytest.mark.parametrize("note", [b"", ABC[:-1].encode(), b"\xff"])
def test_a_broken_note_only_costs_a_reading(model: Path, tmp_path: Path, note: bytes) -> None:
    sha256_of(model)
    (kept,) = (tmp_path / "cache" / "hashes").iterdir()
    assert kept.read_text() == ABC
    kept.write_bytes(note)

    assert sha256_of(model) == ABC
    assert kept.read_text() == ABC


def test_no_cache_only_costs_a_reading(model: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder would be")

    assert sha256_of(model) == ABC


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadDataError, match="gone"):
        sha256_of(tmp_path / "gone")
