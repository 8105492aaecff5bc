"""A page as Markdown: tables that a reader of Markdown takes, and no markup of strangers."""

from pathlib import Path

import pytest
from msgspec import structs

from harness.records.store import load

pytest.importorskip("jinja2")
from harness.show.html import render_markdown
from harness.show.pages import page_of

GOOD = load(Path(__file__).parents[2] / "records" / "v2-smollm2-135m.json")


def test_the_sentence_and_every_table_stand_in_it() -> None:
    text = render_markdown(page_of([GOOD]))
    first = text.partition("\n")[0]
    assert first.startswith("**SmolLM2 135M writes 130 tokens a second on this EPYC, as predicted: 130 to 200**")
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert len(tables) > 15
    widths = [line.count("|") for line in tables]
    rules = [place for place, line in enumerate(tables) if set(line) <= set("|- ")]
    assert rules and all(widths[place - 1] == widths[place] for place in rules)
    assert "<" not in text and "svg" not in text


def test_what_a_stranger_wrote_is_no_markup() -> None:
    assert GOOD.model is not None
    hostile = "<script>x</script> | [a](http://x) `b` @all"
    bad = structs.replace(GOOD, outcome="crashed", detail=hostile, model=structs.replace(GOOD.model, name=hostile))
    text = render_markdown(page_of([bad]))
    assert "<script" not in text and "[a]" not in text and "@all" not in text
