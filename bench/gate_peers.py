"""What two other gates say of recorded runs: pytest-benchmark's comparison, and inference-doctor."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from harness.core.errors import CouldNotRunError

FIRST_RUNS: Final = 6
"""Runs that pytest-benchmark gets: it has no rule by which it would ask for more."""

PYTEST_LIMIT: Final = "mean:5%"

_REPLAY: Final = """
import json
import pytest
times = json.load(open("times.json"))
ticks, now = [], 0.0
for t in times:
    ticks += [now, now + t]
    now += t + 1.0
clock = iter(ticks)

def replay():
    return next(clock)

@pytest.mark.benchmark(timer=replay, disable_gc=False, warmup=False)
def test_decode(benchmark):
    benchmark.pedantic(lambda: None, rounds=len(times), iterations=1, warmup_rounds=0)
"""


class Runs(NamedTuple):
    """Seconds a token of each run, in the order of time."""

    baseline_s: list[float]
    candidate_s: list[float]


def pytest_benchmark_fails(runs: Runs) -> bool:
    """Whether ``pytest --benchmark-compare --benchmark-compare-fail=mean:5%`` exits with a failure.

    Raises:
        CouldNotRunError: The plug-in did not run as asked.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test_replay.py").write_text(_REPLAY)
        status = 0
        for values, options in (
            (runs.baseline_s, ["--benchmark-save=base"]),
            (runs.candidate_s, ["--benchmark-compare", f"--benchmark-compare-fail={PYTEST_LIMIT}"]),
        ):
            (folder / "times.json").write_text(json.dumps(values[:FIRST_RUNS]))
            command = [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", name]
            command += ["-p", "no:cacheprovider", "--benchmark-disable-gc"]
            command += [f"--benchmark-storage=file://{name}/store", *options]
            done = subprocess.run([*command, "test_replay.py"], cwd=name, capture_output=True, text=True, check=False)
            status = done.returncode
            regressed = "Performance has regressed" in done.stdout + done.stderr
            if status and not regressed:
                raise CouldNotRunError(f"pytest-benchmark: {(done.stdout + done.stderr)[-400:]}")
        return status != 0


def doctor_answer(runs: Runs, program: str, threshold_ratio: float) -> str:
    """What ``inference-doctor compare-runs`` answers at a threshold: ``pass``, ``fail`` or ``inconclusive``.

    Raises:
        CouldNotRunError: It cannot be started or does not understand its input.
    """
    with tempfile.TemporaryDirectory() as name:
        for side, values in (("baseline", runs.baseline_s), ("candidate", runs.candidate_s)):
            folder = Path(name) / side
            folder.mkdir()
            for number, seconds in enumerate(values):
                (folder / f"repetition-{number:02}.json").write_text(json.dumps(_document(seconds)))
        command = [program, "compare-runs", "--baseline", f"{name}/baseline", "--candidate", f"{name}/candidate"]
        command += ["--metric", "output_token_throughput", "--regression-percent", f"{threshold_ratio * 100:g}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise CouldNotRunError(f"{program}: {error.strerror}") from error
    for answer in ("INCONCLUSIVE", "FAIL", "PASS"):
        if answer in done.stdout:
            return answer.lower()
    raise CouldNotRunError(f"{program}: {(done.stdout + done.stderr)[-400:]}")


def _document(seconds_per_token: float) -> dict[str, object]:
    return {
        "schema_version": "1",
        "environment": {"gpu": "none", "model": "model"},
        "benchmark_parameters": {"tokens": 32},
        "metrics": {
            "output_token_throughput": 1.0 / seconds_per_token,
            "requests": {"successful": 1, "failed": 0},
        },
    }
