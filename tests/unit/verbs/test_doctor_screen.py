"""The first screen of the doctor: its first word, and no more than one reads at a glance."""

import pytest
from click.testing import CliRunner

from harness.cli import cli
from harness.verbs import doctor
from harness.verbs.doctor import Finding

CPU = Finding(kind="machine", name="processor", state="ok", detail="all of it", brief="AMD EPYC (2 threads)")
LLAMA = Finding(kind="engine", name="runtime llamacpp", state="ok", detail="usable")
ORT = Finding(kind="engine", name="runtime ort", state="ok", detail="usable")
SERVER = Finding(kind="engine", name="runtime server", state="ok", detail="usable")
NO_MLX = Finding(kind="engine", name="runtime mlx", state="missing", detail="mlx-lm is not installed")
NEXT = Finding(kind="engine", name="next", state="missing", detail="x", brief="pip install '.[xllamacpp]'")
SMALL = Finding(kind="machine", name="memory", state="limited", detail="x", brief="programs may use 4 GiB of 24 GiB")
TORN = Finding(kind="folder", name="history", state="broken", detail="torn", brief="the history: torn")
BLIND = Finding(kind="measuring", name="energy and heat", state="missing", detail="x", brief="no sensor is seen")


@pytest.mark.parametrize(
    ("found", "first", "status"),
    [
        ([CPU, LLAMA, ORT, SERVER], "Ready: models run here on AMD EPYC (2 threads), by llamacpp, ort.", 0),
        ([CPU, LLAMA, SERVER, SMALL], "Ready, but programs may use 4 GiB of 24 GiB.", 0),
        ([CPU, SERVER, NEXT], "Not ready: no engine that runs models is installed.", 0),
        ([CPU, LLAMA, SMALL, TORN], "Not ready: the history: torn.", 4),
    ],
)
def test_the_first_word_says_whether_one_can_begin(
    found: list[Finding], first: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: found)
    done = CliRunner(env={"COLUMNS": "80"}).invoke(cli, ["doctor"], standalone_mode=False)
    assert " ".join(done.stdout.split()).startswith(first)
    assert done.return_value == status


def test_what_could_be_better_stands_below_and_engines_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: [CPU, LLAMA, NO_MLX, BLIND])
    lines = CliRunner(env={"COLUMNS": "80"}).invoke(cli, ["doctor"]).stdout.splitlines()
    assert lines[2:] == [
        "  Could be better",
        "    energy and heat     no sensor is seen",
        "  Not installed, and not needed: 1 other engine (--all lists all)",
    ]


def test_the_next_command_can_be_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: [CPU, NEXT])
    lines = CliRunner(env={"COLUMNS": "80"}).invoke(cli, ["doctor"]).stdout.splitlines()
    assert "  pip install '.[xllamacpp]'" in lines


def test_the_screen_of_this_machine_is_short() -> None:
    shown = CliRunner(env={"COLUMNS": "80"}).invoke(cli, ["doctor"]).stdout
    assert shown.startswith(("Ready", "Not ready"))
    assert len(shown.splitlines()) <= 14
    assert len(shown.split()) <= 110
