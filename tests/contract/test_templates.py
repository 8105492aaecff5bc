"""The templates parse, and every command in them exists with its options."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from harness.cli import cli

TEMPLATES = Path(__file__).parents[2] / "docs" / "templates"


def commands() -> list[tuple[str, str]]:
    """Every edge-harness command line of a template."""
    found = []
    workflow = yaml.safe_load((TEMPLATES / "github-workflow.yml").read_text())
    for step in workflow["jobs"]["edge"]["steps"]:
        found += [("workflow", line.strip()) for line in step.get("run", "").splitlines()]
    hooks = yaml.safe_load((TEMPLATES / "pre-commit-config.yaml").read_text())
    found += [("hook", h["entry"]) for r in hooks["repos"] for h in r["hooks"]]
    make = (TEMPLATES / "edge.mk").read_text().replace("$(EDGE)", "edge-harness")
    found += [("make", line.strip()) for line in make.splitlines() if line.startswith("\t")]
    return [(where, line) for where, line in found if line.startswith("edge-harness ")]


@pytest.mark.parametrize(("where", "line"), commands())
def test_command_has_these_options(where: str, line: str) -> None:
    words = shlex.split(line.split(" > ")[0])[1:]
    verb = cli.get_command(None, words[0])
    assert verb is not None, f"{where}: no verb {words[0]}"
    if hasattr(verb, "commands"):
        verb = verb.commands[words[1] if words[1] in verb.commands else "judge"]
    options = {name for parameter in verb.params for name in (*parameter.opts, *parameter.secondary_opts)}

    assert {w for w in words if re.fullmatch(r"--?[a-z][a-z-]*", w)} <= options


def test_there_is_a_command_in_each() -> None:
    assert {where for where, _ in commands()} == {"workflow", "hook", "make"}


@pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")
def test_makefile_runs_dry() -> None:
    done = subprocess.run(
        ["make", "-n", "-f", "edge.mk", "edge"], cwd=TEMPLATES, capture_output=True, text=True, timeout=20, check=True
    )

    assert "edge-harness run smollm2-135m" in done.stdout
    assert "edge-harness gate --budget budgets.toml" in done.stdout


@pytest.mark.parametrize("name", ["budgets.toml", "budgets-predicted.toml"])
def test_budgets_are_sound(name: str) -> None:
    from harness.catalog.budgets import load_budgets

    assert load_budgets(TEMPLATES / name)


def test_predicted_budgets_are_judged_without_a_run() -> None:
    from harness.app.plans import predicted
    from harness.catalog.budgets import load_budgets
    from harness.gates.evaluate import evaluate

    judged = evaluate(load_budgets(TEMPLATES / "budgets-predicted.toml"), [], predict=predicted)

    assert [j.answer for j in judged] == ["pass", "pass"]
    assert all(j.evidence for j in judged)
