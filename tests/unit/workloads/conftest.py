"""Fixtures of several files."""

import pytest
from memory_cases import open_store


@pytest.fixture
def store(tmp_path):
    with open_store(tmp_path / "m.db") as opened:
        yield opened
