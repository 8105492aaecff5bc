"""Options of the whole suite."""

from pathlib import Path

import pytest

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
