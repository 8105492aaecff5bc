"""Random weights where none can be written: one line that says why, and nothing left behind."""

from pathlib import Path

import pytest

from bench.tiny_gguf import synthesize_tiny
from harness.catalog import synthesize as module
from harness.errors import CouldNotRunError, RefusedError


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(CouldNotRunError, match="cannot be written"):
        synthesize_tiny(tmp_path / "file" / "t.gguf", "Q8_0")


def test_a_disk_that_fills_up_on_the_way(tmp_path: Path) -> None:
    # What the file is written to first is a device that takes no byte.
    (tmp_path / "t.gguf.partial").symlink_to("/dev/full")
    with pytest.raises(CouldNotRunError, match="No space left"):
        synthesize_tiny(tmp_path / "t.gguf", "Q8_0")
    assert list(tmp_path.iterdir()) == []


def test_no_room_is_refused_before_a_byte_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.check_room
    monkeypatch.setattr(module, "check_room", lambda folder, size: real(folder, size + (1 << 60)))
    with pytest.raises(RefusedError, match="to spare"):
        synthesize_tiny(tmp_path / "t.gguf", "Q8_0")
    assert list(tmp_path.iterdir()) == []
