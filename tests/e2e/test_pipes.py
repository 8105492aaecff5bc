"""A reader that goes away: the verdict stays what it was, and nothing is said about pipes."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("words", "status"),
    [
        pytest.param(["fit", "smollm2-135m", "-d", "raspberry-pi-5"], 0, id="fits"),
        pytest.param(["fit", "smollm2-135m", "-d", "raspberry-pi-5", "--json"], 0, id="document"),
        pytest.param(["fit", "llama-3.1-405b", "-d", "raspberry-pi-5", "--no-advice"], 1, id="does not fit"),
        pytest.param(["devices", "show"], 0, id="long list"),
        pytest.param(["models", "show", "--json"], 0, id="long document"),
    ],
)
def test_a_closed_pipe_changes_no_verdict(words: list[str], status: int) -> None:
    reading, writing = os.pipe()
    os.close(reading)  # as ``| head -0``: the first write already finds nobody
    try:
        done = subprocess.run(
            [sys.executable, "-m", "harness", *words], stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (status, b"")


KINDS = {
    "missing": ("no such file", "No such file", "no file"),
    "folder": ("a folder", "Is a directory", "is a directory", "a folder without"),
    "foreign": ("unknown key", "magic", "model_type", "schema_version", "no tool known"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("words", "ending"),
    [
        (("models", "show", "X"), "toml"),
        (("devices", "show", "X"), "toml"),
        (("gate", "--budget", "X", "none.json"), "toml"),
        (("models", "show", "X"), "gguf"),
        (("fit", "X", "-d", "raspberry-pi-5"), "gguf"),
        (("fit", "X", "-d", "raspberry-pi-5"), "json"),
        (("history", "X"), "json"),
        (("report", "X", "--out", "page.html"), "json"),
        (("history", "--import", "X"), "json"),
    ],
    ids=lambda v: " ".join(v[:2]) if isinstance(v, tuple) else v,
)
def test_each_reader_tells_them_apart(words, ending, kind, tmp_path, monkeypatch, capfd) -> None:
    from harness.cli import main

    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path / "home"))
    path = tmp_path / f"case.{ending}"
    if kind == "folder":
        path.mkdir()
    elif kind == "foreign":
        path.write_bytes({"toml": b"[tool]\nx = 1\n", "json": b'{"a": [1]}', "gguf": b"PK\3\4" + bytes(64)}[ending])
    monkeypatch.setattr(sys, "argv", ["edge-harness", *(str(path) if word == "X" else word for word in words)])

    with pytest.raises(SystemExit) as end:
        main()

    error = capfd.readouterr().err
    assert end.value.code == 2, error
    assert any(word in error for word in KINDS[kind]), error
    assert not any(word in error for other in KINDS if other != kind for word in KINDS[other]), error
