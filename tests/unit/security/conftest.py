"""What holds for every hostile input: no more than its share of memory is taken, nothing is written elsewhere."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

MOST_BYTES = 200e6
_REFERENCES = Path("/proc/self/clear_refs")


def _status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def _beside(folder: Path) -> set[Path]:
    """What lies where one ``..`` leads; whole trees of a long run's other tests would take seconds to walk."""
    return set(folder.parent.iterdir())


@pytest.fixture(autouse=True)
def within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Peak resident memory of the test, of whatever library took it; and the files beside its own folder."""
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(home))
    outside = _beside(tmp_path)
    is_measured = os.access(_REFERENCES, os.W_OK)
    if is_measured:
        _REFERENCES.write_text("5")  # begins the peak anew
        before = _status_bytes("VmRSS")
    yield
    if is_measured:
        assert _status_bytes("VmHWM") - before < MOST_BYTES
    assert _beside(tmp_path) == outside
