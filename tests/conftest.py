"""Options of the whole suite, and a home of its own: no test sees or touches what the user keeps."""

import os
import tempfile
from pathlib import Path

import pytest

from bench import fake

fake.register()
# Set while the suite is collected, not in a fixture: some tests list devices and models to make their cases.
_HOME = tempfile.TemporaryDirectory(prefix="edge-harness-test-home-")
os.environ["EDGE_HARNESS_HOME"] = _HOME.name

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="Rewrite the files in tests/golden; then read the diff."
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest):
    """Compares text with a file in tests/golden."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"no {path}: run pytest --update-golden, and read what it wrote"
        assert text == path.read_text(encoding="utf-8")

    return check
