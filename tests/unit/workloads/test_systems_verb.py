"""The verb: what is listed, and what is refused."""

import json

import click
import pytest
from click.testing import CliRunner

from harness.cli import cli
from harness.core.errors import RefusedError
from harness.workloads.hooks import companion


@pytest.fixture
def said(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path))
    return lambda *words: CliRunner().invoke(cli, ["workloads", "run", *words], standalone_mode=False)


def test_a_system_that_lacks_a_part_is_refused_before_anything_runs(said):
    result = said("oversight", "-r", "1")
    assert isinstance(result.exception, RefusedError)
    assert str(result.exception) == "oversight needs language: name one with --model MODEL"


@pytest.mark.parametrize("name", ["see", "reason"])
def test_a_part_that_no_case_needs_is_refused(said, name):
    result = said(name, "--encoder", ".")
    assert isinstance(result.exception, RefusedError)
    assert str(result.exception) == f"{name}: no case that is run needs encoder: leave out --encoder FILE"


def test_a_system_without_parts_is_timed_and_scored(said):
    result = said("reason", "-r", "1", "--json")
    record = json.loads(result.stdout)
    assert result.return_value in {0, 3}
    assert [row["op"] for row in record["result"]["passes"]] == ["all", "glue"]
    assert record["result"]["scores"]


def test_systems_are_listed_with_their_parts_and_sizes(said):
    systems = json.loads(said("--json").stdout)
    listed = {system["name"]: system for system in systems.get("items", systems)}
    assert listed["memory"]["parts"] == ["encoder", "language"]
    assert listed["memory"]["sizes"]["default"] == {"entry_count": 10000}


def test_what_says_nothing_without_a_name_is_refused(said):
    result = said("--evaluate")
    assert isinstance(result.exception, click.UsageError)
    assert "'--evaluate' has no meaning without a NAME" in result.exception.format_message()


@pytest.mark.parametrize("name", ["answer", "inspect", "oversight", "reason", "see", "train"])
def test_every_system_can_live_beside_a_model_that_is_its_language_model(name):
    held = companion(name)
    assert (held.name, held.file_bytes) == (f"{name} default", 0)
    assert (held.anonymous_bytes > 0) == (name == "see")
