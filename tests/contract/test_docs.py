"""Each figure of the pages is what its record says."""

from pathlib import Path

import pytest

from bench import docs


def test_pages_say_what_their_records_say() -> None:
    """Run ``python -m bench docs`` where this fails, and read the difference."""
    assert docs.differences() == []


def test_a_changed_digit_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = "tests/records/v2-boundary.json"
    page = tmp_path / "README.md"
    page.write_text(f"It holds <!-- figure metric {record} longest_context_tokens -->1.1e+04<!-- --> tokens.\n")
    monkeypatch.setattr(docs, "pages", lambda: [page])
    monkeypatch.setattr(docs, "ROOT", tmp_path)
    (tmp_path / "tests").symlink_to(Path(__file__).parents[1])
    assert docs.differences() == []

    page.write_text(page.read_text().replace("1.1e", "1.2e"))
    (difference,) = docs.differences()
    assert "README.md:1" in difference
    assert "1.1e+04" in difference

    page.write_text(page.read_text().replace("1.2e", "1.1e"))
    assert docs.differences() == []
