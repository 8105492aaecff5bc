"""An engine of three methods is measured, checked, and its faults name the file and the line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.tiny_gguf import synthesize_tiny
from harness.core.errors import RefusedError
from harness.core.record import Sample
from harness.core.scenario import Scenario
from harness.measure.jobs.token_times import SimpleProtocol, check_honoured
from harness.measure.protocol import GenerateJob
from harness.runtimes.simple import SimpleRuntime
from harness.testing import check_simple_runtime

RECIPES = Path(__file__).parents[2] / "recipes"
ROOT = RECIPES.parents[1]
TOY = (RECIPES / "toy_engine.py").read_text(encoding="utf-8")


class Counted(SimpleRuntime):
    """Gives each token when the clock says; its times are those of the test."""

    name, vocab_count = "counted", 100

    def __init__(self, surplus: int = 0, vocab_count: int = 100) -> None:
        self.time_s, self.surplus, self.open_count = 0.0, surplus, 0
        self.vocab_count = vocab_count

    def now_s(self) -> float:
        return self.time_s

    def load(self, path, scenario):
        self.time_s += 2.0
        self.open_count += 1
        return path

    def generate(self, model, prompt, count):
        self.time_s += 0.5 * (len(prompt) if self.vocab_count else len(prompt.split()))
        for step in range(count + self.surplus):
            self.time_s += 0.25 * (step > 0)
            yield step

    def close(self, model):
        self.open_count -= 1


def samples_of(engine: SimpleRuntime, tmp_path: Path, **asked) -> list[Sample]:
    model = tmp_path / "m.bin"
    model.write_bytes(b"model")
    told = []
    scenario = Scenario(**{"context_tokens": 64, "prompt_tokens": 8, "new_tokens": 4} | asked)
    job = GenerateJob(path=str(model), scenario=scenario, runtime=engine.name, repetitions=1)
    SimpleProtocol(job, engine, lambda name, data: told.append((name, data))).run()
    return [data for name, data in told if name == "sample" and not data.warm_up]


def test_times_are_those_of_the_tokens(tmp_path: Path) -> None:
    """Loading takes 2 s, a prompt token half a second, each later token a quarter."""
    engine = Counted()
    found = {sample.label: sample for sample in samples_of(engine, tmp_path)}
    expected = {"load": 2.0, "load @ cold": 2.0, "pp8": 4.0, "ttft8": 4.0, "ttft8 @ cold": 6.0, "tg4": 1.0}
    assert {label: sample.duration_s for label, sample in found.items()} == expected
    assert found["tg4"].token_times_s == (0.25,) * 4
    assert engine.open_count == 0


def test_a_text_engine_has_no_prompt_speed(tmp_path: Path) -> None:
    labels = [sample.label for sample in samples_of(Counted(vocab_count=0), tmp_path)]
    assert labels == ["load @ cold", "ttft of 8 words @ cold", "load", "ttft of 8 words", "tg4"]


@pytest.mark.parametrize("surplus", [-1, 1])
def test_a_wrong_number_of_tokens_is_an_error(tmp_path: Path, surplus: int) -> None:
    with pytest.raises(Exception, match=r"generate\(model, prompt, 1\) gave .*items, expected 1"):
        samples_of(Counted(surplus=surplus), tmp_path)
    with pytest.raises(AssertionError, match=r"generate\(model, prompt, 1\) gave"):
        check_simple_runtime(Counted(surplus=surplus), tmp_path)


def test_what_the_engine_does_not_follow_is_refused() -> None:
    with pytest.raises(RefusedError, match=r"kv_type: the runtime counted does not follow this"):
        check_honoured(Counted(), Scenario(kv_type="Q8_0", thread_count=3, context_tokens=99))


def test_the_engine_of_the_recipe_keeps_the_promises(tmp_path: Path) -> None:
    namespace: dict = {}
    exec(TOY, namespace)
    check_simple_runtime(namespace["RUNTIME"], synthesize_tiny(tmp_path / "t.gguf", "F16"))


def test_a_strangers_engine_is_run_and_its_crash_names_file_and_line(tmp_path: Path) -> None:
    """By the command line, from a package of its own; the second engine divides by zero in its 14th line."""
    (tmp_path / "toy_engine.py").write_text(TOY)
    crashing = TOY.replace("seed = sum(prompt) + sum(model)", "seed = sum(prompt) // 0").replace('"toy"', '"toyx"')
    (tmp_path / "toy_crash.py").write_text(crashing)
    line = crashing[: crashing.index("// 0")].count("\n") + 1
    info = tmp_path / "toys-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    declared = "[edge_harness.runtimes]\ntoy = toy_engine:RUNTIME\ntoyx = toy_crash:RUNTIME\n"
    (info / "entry_points.txt").write_text(declared)
    model = synthesize_tiny(tmp_path / "t.gguf", "F16")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        "EDGE_HARNESS_HOME": str(tmp_path / "home"),
    }

    def run(runtime: str) -> subprocess.CompletedProcess[str]:
        words = ["run", str(model), "--runtime", runtime, "-p", "16", "-n", "4", "-r", "1", "--json"]
        command = [sys.executable, "-m", "harness", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)

    (record,) = json.loads(run("toy").stdout)["items"]
    assert record["engine"]["name"] == "toy"
    labels = {sample["label"] for sample in record["samples"]}
    assert {"load", "load @ cold", "pp16", "ttft16", "ttft16 @ cold", "tg4"} <= labels
    (record,) = json.loads(run("toyx").stdout)["items"]
    assert record["outcome"] == "failed"
    assert record["detail"].startswith(f"toyx: ZeroDivisionError at toy_crash.py:{line}: ")
    unknown = run("tooy")
    assert unknown.returncode == 2
    assert "no runtime named 'tooy'. Did you mean 'toy'?" in unknown.stderr


def test_contributing_shows_the_engine_that_is_tested_here():
    shown = TOY.split("\n", 2)[2].strip()
    assert shown in (RECIPES.parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
