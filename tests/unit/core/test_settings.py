"""Defaults from a settings file, and names that a shell completes; each from the process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def harness(folder: Path, *words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    home = {**os.environ, "EDGE_HARNESS_HOME": str(folder / "home"), **variables}
    command = [sys.executable, "-m", "harness", *words]
    return subprocess.run(command, cwd=folder, env=home, capture_output=True, text=True, check=False)


def test_a_file_sets_defaults_a_variable_beats_it_and_words_beat_both(tmp_path: Path) -> None:
    (tmp_path / "edge-harness.toml").write_text('[fit]\ndevice = ["rtx 4090"]\ncontext = 8192\n')
    assert "RTX 4090" in harness(tmp_path, "fit", "qwen3-8b").stdout
    assert "-c 8192" in harness(tmp_path, "fit", "qwen3-8b").stdout
    assert "RTX 3090" in harness(tmp_path, "fit", "qwen3-8b", EDGE_HARNESS_FIT_DEVICES="rtx 3090").stdout
    assert "-c 4096" in harness(tmp_path, "fit", "qwen3-8b", "-c", "4096").stdout


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[fitt]\nx = 1\n", "fitt: found a table of no verb, expected 'fit'"),
        ('[fit]\ndevize = "x"\n', "fit.devize: found an option that there is not, expected 'device'"),
        ('[gate.live]\ncandidate = "rm x"\n', "found an option that starts a program"),
        ("fit = 3\n", "fit: found 3, expected a table of options"),
        ("[fit\n", "edge-harness.toml"),
        ('[fit]\ncontext = "tea"\n', "found 'tea', expected a whole number"),
    ],
)
def test_a_slip_names_file_field_found_and_expected(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "edge-harness.toml").write_text(text)
    done = harness(tmp_path, "fit", "qwen3-8b", "-d", "rtx 4090")
    assert done.returncode == 2
    assert says in done.stderr
    assert "nobody foresaw" not in done.stderr


@pytest.mark.parametrize(
    ("words", "place", "first"),
    [
        ("fit qwen3-1", 2, "qwen3-1.7b"),
        ("fit x -d rtx-409", 4, "rtx-4090-desktop"),
        ("fit x -d 4090", 4, "rtx-4090-desktop"),
    ],
)
def test_a_shell_completes_names(tmp_path: Path, words: str, place: int, first: str) -> None:
    variables = {
        "_EDGE_HARNESS_COMPLETE": "bash_complete",
        "COMP_WORDS": f"edge-harness {words}",
        "COMP_CWORD": str(place),
    }
    script = Path(sys.executable).with_name("edge-harness")
    done = subprocess.run(
        [script], cwd=tmp_path, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[0] == f"plain,{first}"
