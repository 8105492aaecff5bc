"""The Python API: what it exports, that its options are the question's, and that its page's examples run."""

import doctest
from pathlib import Path
from typing import get_type_hints

import pytest

import harness
from bench.tiny_gguf import synthesize_tiny
from harness import api
from harness.core.question import Asked

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def test_the_list_of_what_is_public_is_complete_and_sorted() -> None:
    assert harness.__all__ == sorted(harness.__all__)
    assert all(hasattr(harness, name) for name in harness.__all__)
    with pytest.raises(AttributeError, match="no attribute 'fits'"):
        harness.fits  # noqa: B018


def test_the_options_are_the_fields_of_a_question() -> None:
    assert tuple(get_type_hints(api.Options)) == Asked.__struct_fields__


def test_a_value_out_of_bounds_names_field_found_and_expected() -> None:
    with pytest.raises(
        harness.InputError, match=r"context_tokens: found 8, expected a whole number from 64 to .*, or max"
    ):
        harness.fit("llama-3.1-8b", "iphone-16", context_tokens=8)


def test_what_a_notebook_shows_is_escaped() -> None:
    table = api.Table([{"<b>": "<script>", "x": None}], [])
    assert "<script>" not in table._repr_html_()
    assert "&lt;script&gt;" in table._repr_html_()
    shown = harness.fit("llama-3.1-8b", "rtx 3060 12GB")._repr_html_()
    assert shown.startswith("<pre>Yes. Llama 3.1 8B")


@pytest.mark.engine
@pytest.mark.shared_machine
def test_the_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llama_cpp")
    pytest.importorskip("pandas")
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    synthesize_tiny(tmp_path / "tiny.gguf", "Q4_0")
    examples = doctest.DocTestParser().get_doctest(PAGE.read_text(encoding="utf-8"), {}, PAGE.name, str(PAGE), 0)
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(examples)
    assert (result.failed, result.attempted > 15) == (0, True)
