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
    result = said("training_efficiency", "debate", "-r", "1", "--json")
    document = json.loads(result.stdout)
    assert result.return_value == 4
    assert [run["name"] for run in document["runs"]] == ["training_efficiency"]
    assert {step["kind"] for step in document["runs"][0]["steps"]} == {"mfu", "lora"}
    assert document["skipped"] == {"debate": "it needs language: name one with --model MODEL"}


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["calibration", "debate", "--cases", __file__], "--cases has no meaning unless one system is named"),
        (["calibration", "--nli", "."], "--nli has no meaning here: what runs takes no model"),
    ],
)
def test_what_says_nothing_to_the_systems_named_is_refused(said, words, reason):
    result = said(*words)
    assert isinstance(result.exception, click.UsageError)
    assert reason in result.exception.format_message()
