"""The verb: one system or several, and what is refused."""

import json

import click
import pytest
from click.testing import CliRunner

from harness.cli import cli


@pytest.fixture
def said(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path))
    return lambda *words: CliRunner().invoke(cli, ["workloads", "run", *words], standalone_mode=False)


def test_of_several_systems_one_that_lacks_a_part_is_named_and_the_others_run(said):
    result = said("reason", "oversight", "-r", "1", "--json")
    document = json.loads(result.stdout)
    assert result.return_value in {4, 3}
    assert [run["name"] for run in document["runs"]] == ["reason"]
    rows = document["runs"][0]["record"]["result"]["passes"]
    assert [row["op"] for row in rows] == ["all", "glue"]
    assert document["skipped"] == {"oversight": "oversight needs language: name one with --model MODEL"}


def test_the_columns_of_cases_are_listed_with_their_types(said):
    systems = json.loads(said("--json").stdout)
    listed = {system["name"]: system for system in systems.get("items", systems)}
    told = listed["memory"]["columns"]["tell"]
    assert told["text"] == "str" and told["conversation"] == "[str]"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["reason", "oversight", "--cases", __file__], "--cases has no meaning unless one system is named"),
        (["see", "--nli", "."], "--nli has no meaning here: what runs takes no model"),
    ],
)
def test_what_says_nothing_to_the_systems_named_is_refused(said, words, reason):
    result = said(*words)
    assert isinstance(result.exception, click.UsageError)
    assert reason in result.exception.format_message()
