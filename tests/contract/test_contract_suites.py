"""The suites for authors hold on our own plug-ins, find what is broken, and a stranger's plug-ins are found and run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.tiny_gguf import synthesize_tiny
from harness.core import plugins
from harness.core.errors import MissingPackageError
from harness.testing import check_device, check_runtime
from tests.fake import FakeRuntime

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", sorted((ROOT / "devices").glob("*.toml")), ids=lambda p: p.stem)
def test_device(path: Path) -> None:
    check_device(path)


@pytest.mark.engine
@pytest.mark.parametrize(("name", "package"), [("llamacpp", "llama_cpp"), ("ik", "ik_llama_cpp")])
def test_runtimes_of_llama_cpp(tmp_path: Path, name: str, package: str) -> None:
    pytest.importorskip(package)
    check_runtime(plugins.load("harness.runtimes", name, "RUNTIME"), synthesize_tiny(tmp_path / "t.gguf", "F16"))


@pytest.mark.parametrize("name", plugins.entry_names("edge_harness.workloads"))
def test_system(name: str, tmp_path: Path) -> None:
    """Where its cases need no model, the suite for authors holds; the other systems are tested with an engine."""
    pytest.importorskip("harness.workloads")
    from harness.workloads.contract import check_system

    system = plugins.load_entry("edge_harness.workloads", name, "workload")
    size = system.sizes.get("small", system.sizes["default"])
    if any(case.needs for case in system.cases(size)):
        return
    try:
        check_system(system, tmp_path)
    except MissingPackageError as error:
        pytest.skip(str(error))


def test_a_runtime_whose_batches_differ_from_its_steps_is_found(tmp_path: Path) -> None:
    model = tmp_path / "m.json"
    model.write_text("{}")

    class Sloppy(FakeRuntime):
        def open(self, path, scenario):
            session = super().open(path, scenario)
            batch = session.decode

            def decode(tokens, *, position, sequence=0, logits="last"):
                batch(tokens if len(tokens) == 1 else [*tokens[:-1], 0], position=position, sequence=sequence)

            session.decode = decode
            return session

    check_runtime(FakeRuntime(), model)
    with pytest.raises(AssertionError, match="a batch and single steps"):
        check_runtime(Sloppy(), model)


SYSTEM = """
from harness.core.result import Score
from harness.show.panels import Panel
from harness.workloads.system import WorkloadCase, System


class Numbers(WorkloadCase):
    numbers: list[int]


class Sums(System):
    name, title = "sums", "Sums of numbers"
    kinds = (Numbers,)
    sizes = {"default": {"count": 1000}}

    def cases(self, size):
        return [Numbers(numbers=list(range(size["count"])))] * 5

    def step(self, state, case):
        return sum(case.numbers)

    def score(self, cases, answers):
        return [Score(name="sum", value=float(sum(answers)), count=len(answers))]


SYSTEM = Sums()


def panel(record):
    if record.workload != "sums":
        return None
    return Panel("Sums", record.workload, record.outcome, ["figure"], [[str(record.result.scores[0].value)]])
"""

VERB = """
import click


@click.command()
@click.option("--twice", is_flag=True, help="Say it twice.")
def greet(twice):
    click.echo("hello " * (2 if twice else 1))
"""

DEVICE = (ROOT / "devices" / "raspberry-pi-5.toml").read_text(encoding="utf-8")

RUNTIME = """
from tests.fake import FakeRuntime


class Copy(FakeRuntime):
    name = "copycat"


RUNTIME = Copy()
"""


def test_a_strangers_plug_ins_are_listed_checked_and_measured(tmp_path: Path) -> None:
    """A package outside the repository: one file a plug-in, and the entry points that a wheel of it would install."""
    pytest.importorskip("harness.workloads")
    (tmp_path / "their_sums.py").write_text(SYSTEM)
    (tmp_path / "their_runtime.py").write_text(RUNTIME)
    (tmp_path / "their_verb.py").write_text(VERB)
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[edge_harness.workloads]\nsums = their_sums:SYSTEM\ngone = their_gone:SYSTEM\nother = their_sums:panel\n"
        "[edge_harness.panels]\nsums = their_sums:panel\n"
        "[edge_harness.verbs]\ngreet = their_verb:greet\ngone = their_gone:gone\n"
        "[edge_harness.runtimes]\ncopycat = their_runtime:RUNTIME\n"
    )
    devices = tmp_path / "home" / "devices"
    devices.mkdir(parents=True)
    (devices / "their-board.toml").write_text(DEVICE)
    model = tmp_path / "m.json"
    model.write_text("{}")
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": paths, "EDGE_HARNESS_HOME": str(tmp_path / "home")}

    def spoken(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "harness", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def verb(*arguments: str) -> dict | list:
        document = json.loads(spoken(*arguments, "--json").stdout)
        return document.get("items", document)

    contract = (
        "import sys, pathlib; from harness.testing import *; import their_runtime;"
        "check_runtime(their_runtime.RUNTIME, pathlib.Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", contract, str(model)], env=environment, check=True, timeout=60)
    assert "sums" in [w["name"] for w in verb("workloads", "run")]
    other = spoken("workloads", "run", "other").stderr
    assert "(their_sums:panel): found function without 'name', expected a name" in " ".join(other.split())
    own = tmp_path / "own.jsonl"
    own.write_text('{"kind": "numbers", "numbers": [1, 2]}\n{"kind": "numbers", "numbers": [3]}\n')
    built_in = verb("workloads", "run", "sums", "-r", "3", "--size", "count=100")
    (score,) = built_in["result"]["scores"]
    assert (score["count"], score["value"]) == (4, 4 * 4950)
    assert built_in["samples"]
    theirs = verb("workloads", "run", "sums", "--cases", str(own), "--evaluate")
    (score,) = theirs["result"]["scores"]
    assert (score["count"], score["value"]) == (2, 6)
    assert [a["answer"] for a in theirs["result"]["answers"]] == [3, 3]
    assert "hello hello" in spoken("greet", "--twice").stdout
    gone = spoken("gone", "--anything")
    assert (gone.returncode, "their_gone:gone: not there" in gone.stderr) == (4, True)
    (record,) = verb("run", str(model), "--runtime", "copycat", "-c", "64", "-p", "8", "-n", "4", "-r", "1", "-t", "1")
    assert (record["runtime"], record["outcome"]) == ("copycat", "ok")
    assert [e["workload"] for e in verb("history")] == ["generate", "sums", "sums"]
