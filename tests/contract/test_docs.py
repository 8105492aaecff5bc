"""Each figure of the pages is what its record says."""

from pathlib import Path

import pytest

from bench import docs


def test_pages_say_what_their_records_say() -> None:
    """Run ``python -m bench docs`` where this fails, and read the difference."""
    assert docs.differences() == []


def test_a_changed_digit_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = "tests/records/v2-quality.json"
    page = tmp_path / "README.md"
    page.write_text(f"It holds <!-- figure metric {record} perplexity -->15.9<!-- --> of perplexity.\n")
    monkeypatch.setattr(docs, "pages", lambda: [page])
    monkeypatch.setattr(docs, "ROOT", tmp_path)
    (tmp_path / "tests").symlink_to(Path(__file__).parents[1])
    assert docs.differences() == []

    page.write_text(page.read_text().replace(">15.9<", ">16.9<"))
    (difference,) = docs.differences()
    assert "README.md:1" in difference
    assert "15.9" in difference

    page.write_text(page.read_text().replace(">16.9<", ">15.9<"))
    assert docs.differences() == []
