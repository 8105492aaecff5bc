"""The baseline kept beside the code, in a real repository."""

import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from harness.core.errors import CouldNotRunError, InputError, RefusedError
from harness.gates.baselines import KEPT_RUNS, at_commit, update
from harness.records.store import load

KEPT = Path(__file__).parents[2] / "records" / "v2-generate.json"


def runs(count: int):
    """Runs of one kind, a minute apart."""
    one = replace(load(KEPT), outcome="ok")
    return [replace(one, run_id=f"r{i:03d}", created=f"2026-01-01T00:{i:02d}:00Z") for i in range(count)]


def test_the_newest_runs_of_a_kind_stay(tmp_path: Path) -> None:
    assert update(tmp_path, runs(KEPT_RUNS)) == (KEPT_RUNS, 0)
    assert update(tmp_path, runs(KEPT_RUNS + 3)) == (3, 3)
    assert sorted(path.stem for path in tmp_path.glob("*.json"))[0] == "r003"


def test_a_run_that_ended_badly_is_no_baseline(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="no run that ended well"):
        update(tmp_path, [replace(run, outcome="crashed") for run in runs(2)])


def test_a_baseline_is_read_as_it_was_in_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def git(*words: str) -> None:
        who = ("-c", "user.name=n", "-c", "user.email=n@example.org")
        subprocess.run(["git", *who, *words], check=True, capture_output=True)

    git("init")
    update(Path("baseline"), runs(2))
    git("add", ".")
    git("commit", "-m", "two runs")
    update(Path("baseline"), runs(3))

    assert [run.run_id for run in at_commit("baseline", "HEAD")] == ["r000", "r001"]
    with pytest.raises(CouldNotRunError, match="has no record in elsewhere"):
        at_commit("elsewhere", "HEAD")
    with pytest.raises(CouldNotRunError, match="git ls-tree"):
        at_commit("baseline", "no-such-commit")
    with pytest.raises(InputError, match="expected a commit"):
        at_commit("baseline", "--output=x")
