"""An interruption in the middle of writing leaves the old file and nothing else."""

import os
from pathlib import Path

import pytest

from harness.records.store import write_atomically


def test_ctrl_c_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.json"
    write_atomically(path, b"old")

    def interrupted(descriptor: int) -> None:
        del descriptor
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")

    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]
    assert path.read_bytes() == b"old"
