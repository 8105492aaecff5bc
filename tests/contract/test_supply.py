"""What is installed, and by which words: bounded, tried every week, attested, and never by a name nobody owns."""

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import harness.core.errors
from harness.core.errors import MissingPackageError, installing

ROOT = Path(__file__).parents[2]
WORKFLOWS = ROOT / ".github" / "workflows"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_no_page_or_message_installs_a_name_that_nobody_owns() -> None:
    pages = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("harness/**/*.py"),
        *ROOT.glob(".github/**/*.yml"),
    ]
    wrong = re.compile(r"pip3? install (-\S+ )*['\"]?edge-harness\b")

    assert [str(page) for page in pages if wrong.search(page.read_text(encoding="utf-8"))] == []


def test_an_extra_is_installed_by_words_that_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert installing("report") == "pip install '.[report]'"  # here a checkout
    declared = ["click<9,>=8.1", "altair<7,>=5; extra == 'report'", 'vl-convert-python>=1; extra == "report"']
    monkeypatch.setattr("importlib.metadata.requires", lambda _name: declared)
    monkeypatch.setattr(harness.core.errors, "__file__", str(tmp_path / "harness" / "errors.py"))  # of a wheel

    assert installing("report") == "pip install 'altair<7,>=5' 'vl-convert-python>=1'"
    assert "pip install 'altair" in str(MissingPackageError("altair", "report"))


def test_every_dependency_has_a_bound_above() -> None:
    optional = {name: lines for name, lines in PROJECT["optional-dependencies"].items() if name != "test"}
    lines = [*PROJECT["dependencies"], *(line for each in optional.values() for line in each)]
    free = [line for line in lines if not re.search(r"<|==", line.partition(";")[0])]

    # pip fetches, and is whatever the environment has; an extra of ours is bounded by its own lines
    assert [line for line in free if not line.startswith(("pip>", "edge-harness["))] == []


def test_the_newest_of_all_is_tried_every_week() -> None:
    workflow = (WORKFLOWS / "newest.yml").read_text()
    bounds = re.search(r"s/(.*)//", workflow)
    assert bounds is not None

    assert re.sub(bounds[1], "", '"click>=8.1,<9"') == '"click>=8.1"'
    assert yaml.safe_load(workflow)[True]["schedule"][0]["cron"].endswith(" 1")


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.yml")), ids=lambda path: path.stem)
def test_a_workflow_may_read_unless_a_job_says_what_else(path: Path) -> None:
    assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}


def test_a_release_is_files_that_the_forge_attests() -> None:
    jobs = yaml.safe_load((WORKFLOWS / "release.yml").read_text())["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    used = [step["uses"].partition("@")[0] for step in steps if "uses" in step]
    scripts = "\n".join(step.get("run", "") for step in steps)

    assert used.count("actions/attest-build-provenance") == len(jobs)
    assert "actions/attest-sbom" in used
    for command in ("python -m build", "cyclonedx-py", "gh release create"):
        assert command in scripts
    assert "${{" not in scripts, "a script takes what it is given from variables, never by substitution"


def test_the_image_has_an_init() -> None:
    assert 'ENTRYPOINT ["tini", "--", "edge-harness"]' in (ROOT / "Dockerfile").read_text()


def test_the_newest_releases_are_tried_beyond_every_bound() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    script = next(line for line in (WORKFLOWS / "newest.yml").read_text().splitlines() if "sed -i" in line)
    freed = subprocess.run(
        shlex.split(script.replace("-i ", "").replace("pyproject.toml", "")), input=text, capture_output=True,
        text=True, check=True,
    ).stdout  # fmt: skip
    assert re.search(r'"scipy>=[0-9.]+"', freed)
    asked = tomllib.loads(freed)["project"]
    wanted = [*asked["dependencies"], *(one for extra in asked["optional-dependencies"].values() for one in extra)]
    assert [one for one in wanted if ",<" in one] == []


def test_an_image_is_pushed_only_of_what_passed_its_tests() -> None:
    jobs = yaml.safe_load((WORKFLOWS / "release.yml").read_text())["jobs"]
    assert jobs["image"]["needs"] == "files"


USED = [
    (path.name, line.split("uses:")[1].strip())
    for path in sorted([*ROOT.glob(".github/**/*.yml"), *ROOT.glob("docs/templates/*.yml")])
    for line in path.read_text().splitlines()
    if re.match(r"\s*(- )?uses:", line)
]


@pytest.mark.parametrize(("file", "used"), USED)
def test_an_action_is_named_by_its_commit(file: str, used: str) -> None:
    assert re.match(r"[\w-]+/[\w-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+$|OWNER/.*@COMMIT", used), f"{file}: {used}"


def test_the_action_installs_files_by_their_digests() -> None:
    """The lock holds what pyproject.toml asks for with the action's extras, within its bounds, each with a SHA-256."""
    text = (ROOT / ".github" / "actions" / "gate" / "requirements.txt").read_text()
    blocks = [block for block in re.split(r"\n(?=\S)", text) if not block.startswith("#")]
    locked: dict[str, list[str]] = {}
    for block in blocks:
        requirement = Requirement(block.partition("\\")[0].strip())
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), block[:60]
        locked.setdefault(canonicalize_name(requirement.name), []).append(str(requirement.specifier).removeprefix("=="))
    extras = PROJECT["optional-dependencies"]
    asked = [Requirement(one) for one in (*PROJECT["dependencies"], *extras["xllamacpp"], *extras["report"])]
    for one in (*asked, Requirement("hatchling")):
        versions = locked.get(canonicalize_name(one.name), [])
        assert versions and all(one.specifier.contains(version) for version in versions), f"{one}: {versions}"
    action = (ROOT / ".github" / "actions" / "gate" / "action.yml").read_text()
    assert "--require-hashes" in action and 'default: "xllamacpp,report"' in action


def test_every_table_of_others_has_its_source_and_licence() -> None:
    notice = (ROOT / "NOTICE").read_text()
    published = [*ROOT.glob("harness/published/data/*.csv"), *ROOT.glob("bench/rows/data/*.csv")]
    for path in published:
        rows = len(path.read_text(encoding="utf-8").splitlines()) - 1
        assert str(path.relative_to(ROOT)) in notice, path
        told = re.search(rf"{path.relative_to(ROOT)}\n +([\d,]+) figures", notice)
        assert told and abs(int(told[1].replace(",", "")) - rows) <= 1, path
    own = re.compile(r"harness/data/(programs|tensors|ggml_types|mixtures|quantisation_rules|engines)\.csv")
    for path in ROOT.glob("harness/data/*.csv"):
        assert path.name in notice or path.name in {"shape_checks.csv", "usual_machines.csv"}, path
    assert own.search(notice)
    assert "NOTICE" in PROJECT["license-files"]


def test_a_weakness_has_an_address() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    assert "Report a vulnerability" in text and "/security/advisories/new>" in text
