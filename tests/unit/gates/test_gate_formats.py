"""Every format renders every answer, and no name from a file can break out of it."""

import json
from importlib import import_module
from pkgutil import iter_modules
from xml.etree import ElementTree as ET

import pytest

from harness.domain.budget import Budget
from harness.gates import formats
from harness.gates.judge import Judgement

HOSTILE = "<script>alert(1)</script>|\n::error::x [a](b) `c` ]]>\x00"


def judgements() -> list[Judgement]:
    budget = Budget(metric="decode_tokens_per_s", floor=10.0, model=HOSTILE, device="board")
    passed = Judgement(budget=budget, answer="pass", limit=10.0, value=12.0, low=11.0, high=13.0, sample_count=6)
    return [
        passed,
        Judgement(budget=budget, answer="fail", limit=10.0, value=8.0, low=7.5, high=8.5, reason="20.0% outside"),
        Judgement(budget=budget, answer="inconclusive", limit=10.0, reason="no run"),
        Judgement(budget=budget, answer="could not run", limit=10.0, reason="killed", evidence=(HOSTILE,)),
    ]


@pytest.mark.parametrize("name", [m.name for m in iter_modules(formats.__path__)])
def test_every_format_says_every_answer(name: str) -> None:
    text = import_module(f"harness.gates.formats.{name}").render(judgements())

    assert "tokens/s" in text


def test_junit_counts_and_survives_hostile_names() -> None:
    from harness.gates.formats import junit

    root = ET.fromstring(junit.render(judgements()))
    suite = root[0]

    assert {k: suite.get(k) for k in ("tests", "failures", "errors", "skipped")} == {
        "tests": "4",
        "failures": "1",
        "errors": "1",
        "skipped": "1",
    }
    assert len(suite.findall("testcase")) == 4
    assert root.findall(".//script") == []


def test_another_reader_of_junit_sees_the_same() -> None:
    from harness.gates.formats import junit

    junitparser = pytest.importorskip("junitparser")
    seen = junitparser.JUnitXml.fromstring(junit.render(judgements()).encode())

    assert (seen.tests, seen.failures, seen.errors, seen.skipped) == (4, 1, 1, 1)
    kinds = [[type(result).__name__ for result in case.result] for suite in seen for case in suite]
    assert kinds == [[], ["Failure"], ["Skipped"], ["Error"]]


def test_markdown_keeps_its_columns() -> None:
    from harness.gates.formats import markdown

    text = markdown.render(judgements())
    rows = [line for line in text.splitlines() if line.startswith("|")]

    assert len(rows) == 6
    assert {row.count("|") for row in rows} == {7}
    assert "<script" not in text
    assert "[a](" not in text


def test_sarif_reports_what_did_not_pass() -> None:
    from harness.gates.formats import sarif

    document = json.loads(sarif.render(judgements()))

    assert [r["level"] for r in document["runs"][0]["results"]] == ["error", "warning", "error"]


def test_annotations_stay_on_their_line() -> None:
    from harness.gates.formats import github

    lines = github.render(judgements()).splitlines()

    assert [line.split(" ")[0] for line in lines] == ["::notice", "::error", "::warning", "::error"]
