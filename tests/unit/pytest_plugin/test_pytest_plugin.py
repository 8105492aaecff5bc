"""The plug-in from a small project of its own."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.records.store import load

pytest_plugins = ["pytester"]
PLUGIN = ("-p", "harness.pytest_plugin", "-p", "no:cacheprovider")
REAL = Path(__file__).parents[2] / "records" / "v2-smollm2-135m.json"


def installed() -> bool:
    from importlib.metadata import entry_points

    return any(e.value == "harness.pytest_plugin" for e in entry_points(group="pytest11"))


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch):
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(pytester.path / "home"))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def run(source: str, *arguments: str):
        pytester.makepyfile(test_theirs=source)
        own = () if installed() else PLUGIN[:2]
        return pytester.runpytest_subprocess(*own, *PLUGIN[2:], *arguments)

    return run


HEAD = f"""
import pytest
from pathlib import Path
from harness.records.store import load

RECORD = load(Path({str(REAL)!r}))
"""
HELD = """
@pytest.mark.edge_budget(%s)
def test_%s(edge_budget):
    edge_budget(RECORD)
"""


def held(**markers: str) -> str:
    """A file of tests with one budget each."""
    return HEAD + "".join(HELD % (arguments, name) for name, arguments in markers.items())


# The record's five clean decode samples are 127.7, 121.3, 139.0, 133.9 and 142.7 tokens/s: all above 50, all below 500,
# and two on one side of 133, three on the other.
SPEED = "'decode_tokens_per_s', floor={}"


def test_three_answers_with_their_evidence(project) -> None:
    source = held(kept=SPEED.format(50), broken=SPEED.format(500), open=SPEED.format(133))

    result = project(source, "-v")

    result.assert_outcomes(passed=1, failed=1, skipped=1)
    result.stdout.fnmatch_lines(["*test_kept PASSED*", "*test_broken FAILED*", "*test_open SKIPPED*"])
    result.stdout.fnmatch_lines(["*FAIL  decode_tokens_per_s*", "*limit  at least 500 tokens/s*"])


def test_a_file_of_budgets_and_inconclusive_made_to_fail(project, pytester) -> None:
    pytester.makeini("[pytest]\nedge_inconclusive = fail\n")
    budget = '[[budget]]\nmetric = "peak_memory_bytes"\nceiling = 1\n'
    pytester.path.joinpath("budgets.toml").write_text(budget)
    bare = "\ndef test_bare(edge_budget):\n    edge_budget(RECORD)\n"

    result = project(held(open=SPEED.format(133)) + bare, "-o", "edge_budgets=budgets.toml", "-v")

    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*decode_tokens_per_s*", "*FAIL  peak_memory_bytes*"])


def test_a_wrong_marker_is_an_error_in_words(project) -> None:
    wrong = ("'no_such_metric', floor=1", "'decode_tokens_per_s'", "'load_s', floor=1")

    result = project(held(**{f"wrong{n}": arguments for n, arguments in enumerate(wrong)}))

    assert result.ret != 0
    for n in range(len(wrong)):
        result.stdout.fnmatch_lines([f"*UsageError*test_wrong{n}*"])


def test_plugin_costs_unrelated_suites_nothing(tmp_path) -> None:
    code = (
        "import sys, pytest; before = set(sys.modules); import harness.pytest_plugin; "
        "print(sorted(m for m in set(sys.modules) - before if not m.startswith(('harness',))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert not {"numpy", "msgspec", "jinja2", "altair", "psutil", "click"} & set(eval(done.stdout))


@pytest.mark.engine
def test_a_real_model_from_another_project(project, pytester) -> None:
    pytest.importorskip("llama_cpp", reason="the llama extra is not installed")
    from bench.tiny_gguf import synthesize_tiny

    model = synthesize_tiny(pytester.path / "tiny.gguf", "Q4_0")
    source = f"""
import pytest

@pytest.mark.edge_model(
    {str(model)!r}, repetitions=3, patience_s=1, context_tokens=256, prompt_tokens=32, new_tokens=8, thread_count=1
)
@pytest.mark.edge_budget("peak_memory_bytes", ceiling=4e9)
def test_model(edge_model, edge_budget):
    record = edge_model.run()
    assert record.outcome in ("ok", "inconclusive")
    edge_budget(record)
"""

    result = project(source, "--edge-records=records")

    result.assert_outcomes(passed=1)
    (path,) = pytester.path.joinpath("records").glob("*.json")
    assert load(path).memory.peak_rss_bytes > 0


def test_a_marker_that_nothing_is_held_to_fails(project) -> None:
    source = """
import pytest

@pytest.mark.edge_budget("decode_tokens_per_s", floor=1)
def test_without_the_fixture():
    pass

@pytest.mark.edge_budget("decode_tokens_per_s", floor=1)
def test_without_a_call(edge_budget):
    pass

@pytest.mark.edge_budget("decode_tokens_per_s", floor=1)
def test_skipped():
    pytest.skip("no device today")
"""
    project(source).assert_outcomes(failed=2, skipped=1)


BENCHED = HEAD + "\ndef test_model(edge_benchmark):\n    edge_benchmark(RECORD)\n"


def test_a_run_stands_in_the_table_and_the_json_of_pytest_benchmark(project, pytester) -> None:
    pytest.importorskip("pytest_benchmark")
    result = project(BENCHED, "--benchmark-json=out.json", "-p", "no:xdist")

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*smollm2-135m* s a token*", "*test_model*"])
    document = json.loads(pytester.path.joinpath("out.json").read_text())
    first, *others = document["benchmarks"]
    record = load(REAL)
    clean = [s for s in record.samples if s.phase == "decode" and not s.warm_up and not s.validity.doubts]
    expected = sorted(s.duration_s / s.token_count for s in clean)
    assert first["stats"]["rounds"] == len(clean) == 5
    assert first["stats"]["min"] == pytest.approx(expected[0], rel=1e-6)
    assert first["stats"]["median"] == pytest.approx(expected[2], rel=1e-6)
    assert first["extra_info"]["decode_tokens_per_s"] == pytest.approx(133.9, rel=1e-3)
    assert {entry["name"].partition(":")[2] for entry in others} >= {"prefill", "first_token", "load"}


def test_two_builds_are_compared_by_its_own_command(project, pytester) -> None:
    """A build that is twice as slow is shown so by ``pytest-benchmark compare``, which reads the saved files."""
    pytest.importorskip("pytest_benchmark")
    slower = (
        "from msgspec import structs\nRECORD = structs.replace(RECORD, samples=tuple("
        "structs.replace(s, duration_s=2 * s.duration_s) for s in RECORD.samples))\n"
    )
    project(BENCHED, "--benchmark-save=old", "-p", "no:xdist").assert_outcomes(passed=1)
    source = BENCHED.replace("\ndef test_model", f"\n{slower}\ndef test_model")
    project(source, "--benchmark-save=new", "-p", "no:xdist").assert_outcomes(passed=1)
    command = [sys.executable, "-m", "pytest_benchmark", "compare", "--columns=median", "--sort=name", "--csv=c.csv"]
    done = subprocess.run(command, cwd=pytester.path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(pytester.path.joinpath("c.csv").open()))
    old, new = sorted(float(row["median"]) for row in rows if row["name"].endswith("::test_model"))
    assert new / old == pytest.approx(2.0, rel=1e-6)


def test_a_phase_that_there_is_not_is_a_usage_error(project) -> None:
    pytest.importorskip("pytest_benchmark")
    source = BENCHED.replace("edge_benchmark(RECORD)", "edge_benchmark(RECORD, phase='tea')")
    result = project(source, "-p", "no:xdist")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*found phase 'tea', expected one of decode*"])
