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
        pytest.param(["devices", "list"], 0, id="long list"),
        pytest.param(["models", "list", "--json"], 0, id="long document"),
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
