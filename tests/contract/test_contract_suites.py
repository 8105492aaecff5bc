"""The suites for authors hold on our own plug-ins, find what is broken, and a stranger's plug-ins are found and run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.fake import FakeRuntime
from bench.tiny_gguf import synthesize_tiny
from harness import plugins
from harness.testing import check_device, check_runtime, check_workload

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", sorted((ROOT / "devices").glob("*.toml")), ids=lambda p: p.stem)
def test_device(path: Path) -> None:
    check_device(path)


@pytest.mark.engine
@pytest.mark.parametrize(("name", "package"), [("llamacpp", "llama_cpp"), ("ik", "ik_llama_cpp")])
def test_runtimes_of_llama_cpp(tmp_path: Path, name: str, package: str) -> None:
    pytest.importorskip(package)
    check_runtime(plugins.load("harness.runtimes", name, "RUNTIME"), synthesize_tiny(tmp_path / "t.gguf", "F16"))


@pytest.mark.parametrize("name", ["calibration", "reasoning", "training_efficiency"])
def test_workload(name: str) -> None:
    check_workload(plugins.load("harness.workloads", name, "WORKLOAD"), "small")


def test_a_runtime_whose_batches_differ_from_its_steps_is_found(tmp_path: Path) -> None:
    model = tmp_path / "m.json"
    model.write_text("{}")

    class Sloppy(FakeRuntime):
        def open(self, path, scenario, **options):
            session = super().open(path, scenario, **options)
            batch = session.decode

            def decode(tokens, *, position, sequence=0, logits="last"):
                batch(tokens if len(tokens) == 1 else [*tokens[:-1], 0], position=position, sequence=sequence)

            session.decode = decode
            return session

    check_runtime(FakeRuntime(), model)
    with pytest.raises(AssertionError, match="a batch and single steps"):
        check_runtime(Sloppy(), model)


WORKLOAD = """
from harness.domain.workload import Cost
from harness.ports import Operation


class Sum:
    name, title, extra, needs_model = "sums", "Sums of numbers", "", False
    sizes = {"default": {"count": 1000}}

    def costs(self, size):
        held = 8 * size["count"]
        return [Cost(operation="sum", flops_count=size["count"], moved_bytes=held, resident_bytes=held)]

    def prepare(self, size, context):
        return list(range(size["count"]))

    def operations(self, state):
        return [Operation("sum", lambda: sum(state))]

    def check(self, state):
        return {"sum": sum(state)}


WORKLOAD = Sum()
"""

RUNTIME = """
from bench.fake import FakeRuntime


class Copy(FakeRuntime):
    name = "copycat"


RUNTIME = Copy()
"""


def test_a_strangers_plug_ins_are_listed_checked_and_measured(tmp_path: Path) -> None:
    """A package outside the repository: one file a plug-in, and the entry points that a wheel of it would install."""
    (tmp_path / "their_sums.py").write_text(WORKLOAD)
    (tmp_path / "their_runtime.py").write_text(RUNTIME)
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[edge_harness.workloads]\nsums = their_sums:WORKLOAD\n"
        "[edge_harness.runtimes]\ncopycat = their_runtime:RUNTIME\n"
    )
    model = tmp_path / "m.json"
    model.write_text("{}")
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": paths, "EDGE_HARNESS_HOME": str(tmp_path / "home")}

    def verb(*arguments: str) -> dict | list:
        command = [sys.executable, "-m", "harness", *arguments, "--json"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
        assert "Traceback" not in done.stderr, done.stderr
        return json.loads(done.stdout)

    contract = (
        "import sys, pathlib; from harness.testing import *; import their_sums, their_runtime;"
        "check_workload(their_sums.WORKLOAD); check_runtime(their_runtime.RUNTIME, pathlib.Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", contract, str(model)], env=environment, check=True, timeout=60)
    assert "sums" in [w["name"] for w in verb("workloads", "list")]
    result = verb("workloads", "run", "sums", "-r", "3")
    assert result["record"]["result"]["quality"] == {"sum": 499500}
    assert result["record"]["samples"]
    (record,) = verb("run", str(model), "--runtime", "copycat", "-c", "64", "-p", "8", "-n", "4", "-r", "1", "-t", "1")
    assert (record["runtime"], record["outcome"]) == ("copycat", "ok")
    assert [e["workload"] for e in verb("history")] == ["generate", "sums"]
