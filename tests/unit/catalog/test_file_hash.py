"""The hash of a file is that of its bytes; it is read again when the file changes, and only then."""

import os
from pathlib import Path

import pytest

from harness.catalog.file_hash import sha256_of
from harness.errors import BadDataError

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


@pytest.mark.parametrize("notes", [b"", b"{", b"[1]", b'{"a": 1}', b"\xff"])
def test_broken_notes_only_cost_a_reading(model: Path, tmp_path: Path, notes: bytes) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "file-hashes.json").write_bytes(notes)

    assert sha256_of(model) == ABC


def test_notes_do_not_grow_without_end(tmp_path: Path) -> None:
    notes = tmp_path / "cache" / "file-hashes.json"
    for number in range(510):
        path = tmp_path / f"{number}"
        path.write_bytes(b"")
        sha256_of(path)

    assert notes.read_bytes().count(b":") == 500
    assert [path.name for path in notes.parent.iterdir()] == ["file-hashes.json"]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadDataError, match="gone"):
        sha256_of(tmp_path / "gone")
