"""Every format renders every answer, and no name from a file can break out of it."""

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner

from harness.core.budget import Budget
from harness.gates import formats
from harness.gates.judge import Judgement
from harness.records.store import save
from harness.verbs.results import gather

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


@pytest.mark.parametrize("name", ["terminal", "markdown", "junit", "github"])
def test_every_format_says_every_answer(name: str) -> None:
    text = getattr(formats, name)(judgements())

    assert "tokens/s" in text


def test_junit_counts_and_survives_hostile_names() -> None:
    root = ET.fromstring(formats.junit(judgements()))
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
    junitparser = pytest.importorskip("junitparser")
    seen = junitparser.JUnitXml.fromstring(formats.junit(judgements()).encode())

    assert (seen.tests, seen.failures, seen.errors, seen.skipped) == (4, 1, 1, 1)
    kinds = [[type(result).__name__ for result in case.result] for suite in seen for case in suite]
    assert kinds == [[], ["Failure"], ["Skipped"], ["Error"]]


def test_markdown_keeps_its_columns() -> None:
    text = formats.markdown(judgements())
    rows = [line for line in text.splitlines() if line.startswith("|")]

    assert len(rows) == 6
    assert {row.count("|") for row in rows} == {7}
    assert "<script" not in text
    assert "[a](" not in text


def test_annotations_stay_on_their_line() -> None:
    lines = formats.github(judgements()).splitlines()

    assert [line.split(" ")[0] for line in lines] == ["::notice", "::error", "::warning", "::error"]


def test_each_budget_is_named_by_file_and_line(tmp_path, monkeypatch, capsys) -> None:
    from harness.cli.gate import gate as COMMAND
    from harness.gates.budget_file import budget_lines
    from tests.fuzzing.cases import _record_seeds

    monkeypatch.chdir(tmp_path)
    (tmp_path / "my budgets").mkdir()
    file = tmp_path / "my budgets" / "b.toml"
    table = '[[budget]]\nmetric = "decode_tokens_per_s"\nfloor = 1e6\n'
    file.write_text(f"# two limits\n\n{table}\n[[ budget ]]\n" + table.partition("\n")[2])
    record = tmp_path / "r.json"
    record.write_bytes(_record_seeds(tmp_path)[0])
    said = {}
    for form in ("junit", "github"):
        words = ["--budget", "my budgets/b.toml", str(record), "--format", form]
        COMMAND.main(words, standalone_mode=False)
        said[form] = capsys.readouterr().out

    cases = list(ET.fromstring(said["junit"]).iter("testcase"))
    assert [(c.get("file"), c.get("line")) for c in cases] == [("my budgets/b.toml", "3"), ("my budgets/b.toml", "7")]
    assert "file=my budgets/b.toml,line=7,title=" in said["github"]
    file.write_text("budget = [{ metric = 'ttft_s', ceiling = 1.0 }]\n")
    assert budget_lines(file, 1) == [1]


def test_proposed_budgets_are_written_where_asked_and_hold(tmp_path: Path) -> None:
    from harness.cli.gate import gate as COMMAND

    run, file = "reports/check/default.json", str(tmp_path / "b.toml")
    printed = CliRunner().invoke(COMMAND, ["init", run])
    written = CliRunner().invoke(COMMAND, ["init", run, "-o", file])
    assert (written.exit_code, written.stdout) == (0, "")
    assert Path(file).read_text() == printed.stdout
    comments = [line for line in printed.stdout.splitlines() if line.startswith("#")]
    left_open = "; this one run leaves it undecided: to settle it, 3 runs, which tell how much they differ"
    assert [left_open in line for line in comments] == [True, True, True, False]
    assert "up to 0.3% was seen elsewhere" in comments[3]

    one = CliRunner().invoke(COMMAND, ["--budget", file, run], standalone_mode=False)
    three_runs = three_like(Path(run), tmp_path)
    three = CliRunner().invoke(COMMAND, ["--budget", file, *three_runs], standalone_mode=False)

    assert (one.return_value, one.stdout.split(".")[0]) == (3, "UNDECIDED: 3 of 4 budgets, 1 passed")
    assert "To settle it: 3 runs, which tell how much they differ." in one.stdout
    assert (three.return_value, three.stdout.split(".")[0]) == (0, "PASS: 4 of 4 budgets")


def three_like(run: Path, folder: Path) -> list[str]:
    """Files of three runs that took 0.5 % less, as much and 0.5 % more time than a real one, a minute apart."""
    [record] = gather([str(run)])
    paths = []
    for index, factor in enumerate((0.995, 1.0, 1.005)):
        samples = tuple(
            each.replace(
                duration_s=each.duration_s * factor,
                token_times_s=tuple(seconds * factor for seconds in each.token_times_s),
            )
            for each in record.samples
        )
        created = f"2026-11-26T01:3{index}:00.000Z"
        path = folder / f"{index}.json"
        save(record.replace(run_id=f"{index}-alike", created=created, samples=samples), path)
        paths.append(str(path))
    return paths
