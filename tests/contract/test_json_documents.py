"""What ``--json`` prints is what the published schema says, for verbs that need no engine and for errors."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from bench import json_schemas
from bench.renderers import verbs
from harness.cli import cli
from harness.core.errors import HarnessError

PUBLISHED = json.loads(json_schemas.PUBLISHED.read_text(encoding="utf-8"))
RECORD = "tests/records/v2-generate.json"


def valid(document: dict[str, object]) -> list[str]:
    verb = str(document["schema"]).removeprefix("edge-harness ")
    described = {"$defs": PUBLISHED["$defs"], **PUBLISHED["documents"][verb]}
    return [error.message[:200] for error in Draft202012Validator(described).iter_errors(document)]


def test_the_published_schema_is_that_of_the_types() -> None:
    """Run ``python -m bench json_schemas`` where this fails."""
    assert json.loads(json.dumps(json_schemas.schema())) == PUBLISHED


def test_every_verb_with_json_has_a_schema() -> None:
    own = {v.command_path.removeprefix("edge-harness "): v.command for v in verbs()}
    takes = {name for name, command in own.items() if any("--json" in p.opts for p in command.params)}
    others = {name for name in takes if name.startswith("workloads")}  # a plug-in's
    assert takes - others == set(PUBLISHED["documents"]) - {"error"}


@pytest.mark.parametrize(
    "words",
    [
        ["fit", "llama-3.2-3b", "-d", "iphone-15-pro"],
        ["fit", "qwen3-30b-a3b", "-d", "rtx-4060-desktop, 32GB", "--price", "0.3,1", "--measured", "9"],
        ["fit", "llama-3.2-3b", "-d", "iphone-15-pro", "-d", "macbook-air-m3", "--no-advice"],
        ["fit", "llama-3.2-1b*", "smollm2-135m", "-d", "iphone-12"],
        ["recommend", "macbook-air-m3"],
        ["history", RECORD, RECORD],
        ["devices", "show"],
        ["devices", "show", "iphone-12"],
        ["models", "show"],
        ["models", "show", "llama-3.2-3b"],
        ["doctor"],
        ["history"],
    ],
    ids=" ".join,
)
def test_documents_are_as_published(words: list[str]) -> None:
    done = CliRunner().invoke(cli, [*words, "--json"], prog_name="edge-harness")
    assert not isinstance(done.exception, HarnessError), done.exception
    document = json.loads(done.stdout)
    assert document["version"] == 1
    assert valid(document) == []


def test_a_record_that_was_printed_is_read_again(tmp_path: Path) -> None:
    head = {"schema": "edge-harness soak", "version": 1}
    record = json.loads(Path(RECORD).read_text())
    for name, document in (("one", head | record), ("several", head | {"items": [record]})):
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
        done = CliRunner().invoke(cli, ["history", str(tmp_path / f"{name}.json"), "--json"])
        assert record["run_id"] in done.stdout, done.exception


def test_a_wrong_document_is_found() -> None:
    assert valid({"schema": "edge-harness fit", "version": 1, "advice": []}) != []
    assert valid({"schema": "edge-harness run", "version": 1, "items": [{"run_id": 3}]}) != []
    assert valid({"schema": "edge-harness error", "version": 1, "error": {"message": "x", "exit_status": 2}}) == []
