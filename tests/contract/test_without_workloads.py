"""The core works with ``harness/workloads`` deleted: nothing in it knows a system by name."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "bench" / "without_workloads.sh"


def run(*arguments: str, timeout_s: float) -> None:
    done = subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, check=False, timeout=timeout_s)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def test_verbs_answer_and_what_is_gone_says_so() -> None:
    run("verbs", timeout_s=250)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_tests_of_the_rest_pass() -> None:
    run(timeout_s=3500)
