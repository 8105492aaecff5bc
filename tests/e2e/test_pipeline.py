"""Every verb that measures leaves a record, whatever happens to its child, and takes its turn on the machine."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.tiny_gguf import synthesize_tiny

pytest.importorskip("llama_cpp", reason="the llama extra is not installed")
pytestmark = [pytest.mark.engine, pytest.mark.skipif(sys.platform != "linux", reason="kills and limits of Linux")]

VERBS = {
    "generate": ("run", "-n", "400", "-p", "64", "-c", "512", "-r", "400"),
    "speculate": ("speculate", "--draft", "lookup", "--tokens", "400", "-r", "50"),
    "stream": (
        "stream",
        "--ram-budget",
        "400MB",
        "--tokens",
        "300",
        "-r",
        "50",
        "--no-predict",
        "--draft",
        "lookup",
    ),  # with a draft no control child runs first: the one that is killed measures
    "quality": ("ladder", "--quants", "Q4_0,Q5_0", "--no-speed", "--chunks", "4"),
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize_tiny(tmp_path_factory.mktemp("models") / "tiny.gguf", "Q8_0", feed_forward_dim=512)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    # A ladder refuses synthetic weights, whose quality means nothing; its pipeline is what is tested here.
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import sys\nif 'ladder' in sys.argv:\n"
        "    from harness.models.gguf import GgufFile\n    GgufFile.synthetic = False\n"
    )
    path = os.pathsep.join(filter(None, (str(hook), str(Path.cwd()), os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, "EDGE_HARNESS_HOME": str(tmp_path / "home"), "PYTHONPATH": path}


def start(tiny: Path, kind: str, environment: dict[str, str], *more: str) -> "subprocess.Popen[str]":
    verb, *options = VERBS[kind]
    command = [sys.executable, "-m", "harness", verb, str(tiny), *options, *more, "--json"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def measured_child(process: "subprocess.Popen[str]", *, patience_s: float = 60.0) -> psutil.Process:
    """The child that measures, once it has loaded the engine."""
    until_s = time.monotonic() + patience_s
    while time.monotonic() < until_s and process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            try:
                loaded = any("llama" in m.path for m in child.memory_maps())
                if loaded and any(a.endswith("child_process.py") for a in child.cmdline()):
                    return child
            except psutil.Error:
                continue
        time.sleep(0.02)
    raise AssertionError(f"no measured child: {process.communicate(timeout=5)}")


def history(environment: dict[str, str]) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "harness", "history", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    entries: list[dict[str, Any]] = json.loads(done.stdout)["items"]
    return entries


@pytest.mark.shared_machine
@pytest.mark.parametrize("kind", sorted(VERBS))
def test_a_killed_child_is_a_recorded_result(kind: str, tiny: Path, environment: dict[str, str]) -> None:
    process = start(tiny, kind, environment, "--timeout", "60")
    measured_child(process).send_signal(signal.SIGKILL)
    out, err = process.communicate(timeout=120)

    assert "Traceback" not in err, err
    entries = history(environment)
    # Of a ladder the killed child may be the one that makes a file: then the rung could not be made.
    assert any(e["workload"] == kind and e["outcome"] in {"crashed", "failed"} for e in entries), (entries, err, out)
    if kind != "quality":
        assert process.returncode == 4


@pytest.mark.shared_machine
@pytest.mark.parametrize(
    ("kind", "more", "outcomes"),
    [
        ("generate", ("--memory-limit", "12MB"), {"out of memory"}),
        ("speculate", ("--memory-limit", "12MB"), {"out of memory"}),
    ],
)
def test_a_limit_that_is_too_small_is_a_recorded_result(
    kind: str, more: tuple[str, ...], outcomes: set[str], tiny: Path, environment: dict[str, str]
) -> None:
    process = start(tiny, kind, environment, *more)
    _out, err = process.communicate(timeout=120)

    assert "Traceback" not in err, err
    assert process.returncode == 4
    (entry,) = history(environment)
    assert (entry["workload"], entry["outcome"] in outcomes) == (kind, True), entry


@pytest.mark.shared_machine
def test_two_verbs_take_turns(tiny: Path, environment: dict[str, str]) -> None:
    first = start(tiny, "generate", environment, "--timeout", "8")
    measured_child(first)
    second = start(tiny, "generate", environment, "--memory-limit", "12MB", "--timeout", "30")
    first.communicate(timeout=120)
    ended_s = time.time()
    out, err = second.communicate(timeout=120)

    assert f"waiting for process {first.pid} to finish" in err.replace("\n", " ")
    (record,) = json.loads(out)["items"]
    assert record["outcome"] == "out of memory"
    # RFC 3339 in UTC: made after the first one ended.
    import datetime

    assert datetime.datetime.fromisoformat(record["created"]).timestamp() >= ended_s - 1


def test_a_gate_judges_every_kind(tmp_path: Path) -> None:
    """Budgets on a perplexity and on an acceptance, over records of real runs that ship with the tests."""
    kept = Path(__file__).parents[1] / "records"
    budgets = tmp_path / "budgets.toml"
    budgets.write_text(
        '[[budget]]\nmetric = "perplexity"\nworkload = "quality"\nceiling = 16.0\n'
        '[[budget]]\nmetric = "acceptance_ratio"\nworkload = "speculate"\nfloor = 0.5\n'
    )
    records = [str(kept / f"v2-{kind}.json") for kind in ("quality", "speculate")]
    command = [sys.executable, "-m", "harness", "gate", "--budget", str(budgets), *records, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    # 15.88 of at most 16; nothing was drafted, so nothing was accepted.
    answers = [j["answer"] for j in json.loads(done.stdout)["items"]]
    assert answers == ["pass", "fail"]
    assert done.returncode == 1
