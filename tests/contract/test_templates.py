"""The templates parse, and every command in them exists with its options."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from harness.cli import cli

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "docs" / "templates"
ACTION = ROOT / ".github" / "actions" / "gate" / "action.yml"


def commands() -> list[tuple[str, str]]:
    """Every edge-harness command line of a template."""
    found = []
    for step in yaml.safe_load(ACTION.read_text())["runs"]["steps"]:
        found += [("action", line.strip().partition(" || ")[0]) for line in step.get("run", "").splitlines()]
    hooks = yaml.safe_load((TEMPLATES / "pre-commit-config.yaml").read_text())
    found += [("hook", h["entry"]) for r in hooks["repos"] for h in r["hooks"]]
    make = (TEMPLATES / "edge.mk").read_text().replace("$(EDGE)", "edge-harness")
    found += [("make", line.strip()) for line in make.splitlines() if line.startswith("\t")]
    found += [("extras", line.removeprefix("timeout 10 ").partition(" || ")[0]) for _, line in extras()]
    return [(where, line) for where, line in found if re.match("edge-harness [a-z]", line)]


def extras() -> list[tuple[str, str]]:
    """Each extra with a command that the job by night runs for it."""
    lines = (ROOT / ".ci" / "extras.txt").read_text().splitlines()
    return [(name, line) for name, _, line in (each.partition(": ") for each in lines if not each.startswith("#"))]


@pytest.mark.parametrize(("where", "line"), commands())
def test_command_has_these_options(where: str, line: str) -> None:
    words = shlex.split(line.split(" > ")[0])[1:]
    verb = cli.get_command(None, words[0])
    assert verb is not None, f"{where}: no verb {words[0]}"
    if hasattr(verb, "commands"):
        verb = verb.commands[words[1] if words[1] in verb.commands else "judge"]
    options = {name for parameter in verb.params for name in (*parameter.opts, *parameter.secondary_opts)}

    assert {w for w in words if re.fullmatch(r"--?[a-z][a-z-]*", w)} <= options


def test_files_that_extras_are_tried_on_are_there() -> None:
    named = {word.removeprefix("$HERE/") for _, line in extras() for word in line.split() if word.startswith("$HERE/")}
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_there_is_a_command_in_each() -> None:
    assert {where for where, _ in commands()} == {"action", "hook", "make", "extras"}


def test_each_extra_of_this_platform_is_tried_by_night() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    job = yaml.safe_load((ROOT / ".github" / "workflows" / "nightly-extras.yml").read_text())["jobs"]["extra"]
    # mlx runs on Macs alone.
    wanted = {*declared, "none"} - {"all", "test", "mlx"}

    assert {name for name, _ in extras()} == wanted
    assert set(job["strategy"]["matrix"]["name"]) == wanted


@pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")
def test_makefile_runs_dry() -> None:
    done = subprocess.run(
        ["make", "-n", "-f", "edge.mk", "edge"], cwd=TEMPLATES, capture_output=True, text=True, timeout=20, check=True
    )

    assert "edge-harness run smollm2-135m" in done.stdout
    assert "edge-harness gate --budget budgets.toml" in done.stdout


@pytest.mark.parametrize("name", ["budgets.toml", "budgets-predicted.toml"])
def test_budgets_are_sound(name: str) -> None:
    from harness.gates.budget_file import load_budgets

    assert load_budgets(TEMPLATES / name)


def test_predicted_budgets_are_judged_without_a_run() -> None:
    from harness.gates.budget_file import load_budgets
    from harness.gates.evaluate import evaluate

    judged = evaluate(load_budgets(TEMPLATES / "budgets-predicted.toml"), [])

    assert [j.answer for j in judged] == ["pass", "pass"]
    assert all(j.evidence for j in judged)


def steps_of(action: Path, inputs: dict[str, str], folder: Path, bin_folder: Path) -> tuple[int, str]:
    """Run the steps of a composite action as a runner does: conditions, variables, outputs, a summary.

    Returns:
        Exit status of the first step that failed (later ones run only where they say ``always()``), and the summary.
    """
    document = yaml.safe_load(action.read_text())
    given = {name: str(each.get("default", "")) for name, each in document["inputs"].items()} | inputs
    summary, output = folder / "summary.md", folder / "output.txt"
    summary.touch()
    status = 0
    for step in document["runs"]["steps"]:
        if "uses" in step:  # the cache: the folder is kept from one call to the next
            continue
        condition = step.get("if", "")
        wanted = all(
            (given[m[1]] == m[3]) == (m[2] == "==") for m in re.finditer(r"inputs\.(\w+) (==|!=) '(\w*)'", condition)
        )
        if not wanted or (status and "always()" not in condition):
            continue
        values = {
            key: re.sub(r"\$\{\{ inputs\.(\w+) \}\}", lambda m: given[m[1]], text)
            for key, text in step.get("env", {}).items()
        }
        assert "${{" not in step["run"], "a script takes what it is given from variables, never by substitution"
        environment = (
            os.environ
            | values
            | {
                "PATH": f"{bin_folder}:{os.environ['PATH']}",
                "GITHUB_STEP_SUMMARY": str(summary),
                "GITHUB_OUTPUT": str(output),
                "EDGE_HARNESS_HOME": str(folder / "home"),
                "PYTHONPATH": str(ROOT),
            }
        )
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", step["run"]], cwd=folder, env=environment, timeout=120, check=False
        )
        status = status or done.returncode
    return status, summary.read_text()


@pytest.fixture
def repository(tmp_path: Path) -> tuple[Path, Path]:
    """A stranger's repository with budgets and results, and a folder with the command."""
    folder, programs = tmp_path / "repository", tmp_path / "bin"
    folder.mkdir()
    programs.mkdir()
    command = programs / "edge-harness"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m harness "$@"\n')
    command.chmod(0o755)
    return folder, programs


@pytest.mark.parametrize(
    ("ceiling", "model", "status", "said"),
    [
        pytest.param(1e12, "*", 0, "pass", id="kept"),
        pytest.param(1.0, "*", 1, "fail", id="broken"),
        pytest.param(1e12, "a-model-that-was-renamed", 4, "no run matches this budget", id="no evidence"),
    ],
)
def test_the_action_is_red_where_it_must_be(
    repository: tuple[Path, Path], ceiling: float, model: str, status: int, said: str
) -> None:
    folder, programs = repository
    (folder / "budgets.toml").write_text(
        f'[[budget]]\nmetric = "peak_memory_bytes"\nmodel = "{model}"\nceiling = {ceiling}\n'
    )
    results = folder / "edge-results"
    results.mkdir()
    shutil.copy(ROOT / "tests" / "records" / "v2-generate.json", results)

    ended, summary = steps_of(ACTION, {"install": ""}, folder, programs)

    assert (ended != 0) == (status != 0)
    assert f"status={status}" in (folder / "output.txt").read_text()
    assert said in summary
    assert (folder / "gate.svg").read_text().startswith("<svg")


def test_a_runner_that_never_calms_does_not_stay_green(repository: tuple[Path, Path]) -> None:
    folder, programs = repository
    record = json.loads((ROOT / "tests" / "records" / "v2-smollm2-135m.json").read_text())
    for sample in record["samples"]:
        sample["validity"] = {**sample.get("validity", {}), "doubts": ["other processes used 80 % of all CPU time"]}
    (folder / "edge-results").mkdir()
    (folder / "edge-results" / "busy.json").write_text(json.dumps(record))
    (folder / "budgets.toml").write_text('[[budget]]\nmetric = "decode_tokens_per_s"\nfloor = 100\n')

    allowed = {"install": "", "undecided": "allow"}

    assert steps_of(ACTION, {"install": ""}, folder, programs)[0] != 0
    assert steps_of(ACTION, allowed, folder, programs)[0] == 0
    budget = (folder / "budgets.toml").read_text()
    (folder / "budgets.toml").write_text(f"{budget}undecided_builds = 2\n")
    record["run_id"] = "another-build"
    (folder / "edge-results" / "busy.json").write_text(json.dumps(record))
    assert steps_of(ACTION, allowed, folder, programs)[0] == 1


def test_a_run_that_leaves_no_record_is_not_judged_by_an_older_one(repository: tuple[Path, Path]) -> None:
    folder, programs = repository
    (folder / "edge-results").mkdir()
    shutil.copy(ROOT / "tests" / "records" / "v2-generate.json", folder / "edge-results")
    (folder / "budgets.toml").write_text('[[budget]]\nmetric = "peak_memory_bytes"\nceiling = 1e12\n')
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    environment["EDGE_HARNESS_HOME"] = str(folder / "home")
    words = ["make", "-f", str(TEMPLATES / "edge.mk"), "edge-gate", "EDGE_MODEL=smolm2-135m"]

    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode != 0
    assert "NO EVIDENCE" in done.stdout


def test_the_workflow_may_read_alone() -> None:
    workflow = yaml.safe_load((TEMPLATES / "github-workflow.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    installs = [step for step in workflow["jobs"]["edge"]["steps"] if "pip install" in step.get("run", "")]
    assert installs == [], "edge-harness comes from the commit of the action, not from a registry's name"
