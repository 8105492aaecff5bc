"""A gate judges what was meant to run: each setting, build, copy, clock and figure that slipped through, as a case."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import pytest
from msgspec import structs

from harness.core.budget import PINS, Budget
from harness.core.errors import CouldNotRunError, HarnessError
from harness.core.metric import metric_values
from harness.core.record import Record
from harness.core.scenario import Scenario
from harness.gates.evaluate import evaluate
from harness.gates.evidence import evidence_of
from harness.gates.judge import Judgement
from harness.gates.pins import pins_of
from harness.records.manifest import ENDING, load_manifest, manifest, noted
from harness.records.possible import impossible
from harness.records.store import from_document, load, save
from harness.show.html import render
from harness.show.pages import page_of

GOOD = load(Path(__file__).parents[2] / "records" / "v2-smollm2-135m.json")
assert GOOD.model is not None and GOOD.engine is not None
NAME = GOOD.model.name
START = datetime(2026, 9, 1, tzinfo=UTC)
FLOOR = Budget(metric="decode_tokens_per_s", floor=0.01, model=NAME)
SLOWDOWN = Budget(metric="decode_tokens_per_s", slowdown_ratio=0.2, model=NAME)


def run(name: str, hours: float = 0.0, factor: float = 1.0, base: Record = GOOD) -> Record:
    """A run of its own, ``factor`` times as long; no two have the same nanoseconds."""
    own = 1.0 + (sum(map(ord, name)) % 97) * 1e-6
    samples = [structs.replace(one, duration_s=one.duration_s * factor * own) for one in base.samples]
    made = (START + timedelta(hours=hours)).isoformat()
    return structs.replace(base, run_id=name, created=made, samples=tuple(samples))


def _changed(pin: str) -> Record:
    """The run with another value of one pin."""
    placement = GOOD.scenario.placement
    assert GOOD.model is not None and GOOD.engine is not None
    of_run: dict[str, Callable[[], Record]] = {
        "machine": lambda: structs.replace(GOOD, machine=structs.replace(GOOD.machine, cpu_model="Other")),
        "memory_limit_bytes": lambda: structs.replace(GOOD, extra={**GOOD.extra, "memory_limit_bytes": 10**9}),
        "target": lambda: structs.replace(GOOD, target="ssh"),
        "model_sha256": lambda: structs.replace(GOOD, model=structs.replace(GOOD.model, sha256="f" * 64)),
        "quant": lambda: structs.replace(GOOD, model=structs.replace(GOOD.model, quant="Q2_K")),
        "runtime": lambda: structs.replace(GOOD, runtime="ik"),
        "runtime_version": lambda: structs.replace(GOOD, engine=structs.replace(GOOD.engine, version="9.9.9")),
        "variant": lambda: structs.replace(GOOD, engine=structs.replace(GOOD.engine, variant="sse42")),
        "draft": lambda: load(Path(__file__).parents[2] / "records" / "v2-speculate.json"),
    }
    if pin in of_run:
        return of_run[pin]()
    part: Any = GOOD.scenario if pin in Scenario.__struct_fields__ else placement
    value = getattr(part, pin)
    other: Any = "other"
    if isinstance(value, bool):
        other = not value
    elif isinstance(value, int):
        other = value + 64
    elif isinstance(value, tuple):
        other = (3.0, 1.0)
    elif pin == "gpu_layers":
        other = 7
    elif pin == "split_mode":
        other = "row"
    changed = structs.replace(part, **{pin: other})
    scenario = changed if pin in Scenario.__struct_fields__ else structs.replace(GOOD.scenario, placement=changed)
    return structs.replace(GOOD, scenario=scenario)


def judged(*given: Any, **more: Any) -> Judgement:
    (found,) = evaluate(*given, **more)
    return found


def test_every_field_of_scenario_and_placement_is_a_pin() -> None:
    fields = {*Scenario.__struct_fields__, *type(GOOD.scenario.placement).__struct_fields__} - {"placement"}
    assert fields <= set(PINS)
    assert set(pins_of(GOOD)) == set(PINS)


@pytest.mark.parametrize("pin", [pin for pin in PINS if pin != "draft"])
def test_a_newer_run_that_differs_in_a_pin_is_no_silence(pin: str) -> None:
    pinned = FLOOR.replace(pin=pins_of(GOOD))
    yesterday, today = run("yesterday"), run("today", 24, factor=5.0, base=_changed(pin))

    found = judged([pinned], [yesterday, today])

    assert found.answer == "could not run"
    assert "today" in found.reason and pin in found.reason
    assert judged([pinned], [yesterday, today], differs=frozenset({pin})).answer != "could not run"


@pytest.mark.parametrize("pin", [pin for pin in PINS if pin not in {"draft", "model_sha256", "runtime_version"}])
def test_a_baseline_of_another_setting_is_none(pin: str) -> None:
    before = [run(f"b{n}", n / 60, base=_changed(pin)) for n in range(5)]
    new = [run(f"n{n}", n / 60) for n in range(5)]

    found = judged([SLOWDOWN], new, baseline=before)

    assert found.answer == "could not run"
    assert pin in found.reason


def test_a_baseline_of_another_model_is_none() -> None:
    assert GOOD.model is not None
    other = structs.replace(GOOD, model=structs.replace(GOOD.model, name="another"))
    before = [run(f"b{n}", n / 60, base=other) for n in range(5)]
    found = judged([SLOWDOWN.replace(model="*")], [run("n")], baseline=before)
    assert found.answer == "could not run" and "another" in found.reason


def test_thirty_old_runs_do_not_make_one_slow_new_build_good() -> None:
    assert GOOD.engine is not None
    new_build = structs.replace(GOOD, engine=structs.replace(GOOD.engine, version="next"))
    rate = median(metric_values(GOOD, "decode_tokens_per_s"))
    old = [run(f"o{n}", n / 60) for n in range(30)]
    slow = [run(f"n{n}", 24 + n / 60, factor=2.0, base=new_build) for n in range(3)]
    budget = FLOOR.replace(floor=0.8 * rate, label="")

    found = judged([budget], [*old, *slow])

    assert found.answer == "fail"
    assert "30 runs of older builds left out" in found.reason


def _samples(**fields: Any) -> Record:
    return structs.replace(GOOD, samples=tuple(structs.replace(one, **fields) for one in GOOD.samples))


def _scaled(factor: float) -> Record:
    return structs.replace(
        GOOD,
        extra={**GOOD.extra, "wall_s": 60.0},
        samples=tuple(
            structs.replace(
                one, duration_s=one.duration_s * factor, token_times_s=tuple(t * factor for t in one.token_times_s)
            )
            for one in GOOD.samples
        ),
    )


def _memory(**fields: Any) -> Record:
    assert GOOD.memory is not None
    return structs.replace(GOOD, memory=structs.replace(GOOD.memory, **fields))


IMPOSSIBLE = {
    "a hundred million times faster": _scaled(1e-8),
    "ten thousand times faster": _scaled(1e-4),
    "seconds told as milliseconds": _scaled(1e-3),
    "milliseconds told as seconds": _scaled(1e3),
    "thirty times its roofline": _scaled(1 / 60),
    "negative joules": _samples(energy_joules=-5.0),
    "a million joules a sample": _samples(energy_joules=1e9),
    "tokens in no time": _samples(duration_s=0.0),
    "a billion tokens": _samples(token_count=10**9),
    "tokens longer than their sample": _samples(token_times_s=(1e3, 1e3)),
    "more memory than the machine has": _memory(peak_rss_bytes=10 * max(GOOD.machine.ram_bytes, 10**12)),
    "more anonymous memory than memory": _memory(peak_anonymous_bytes=10**12, peak_rss_bytes=10**8),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
@pytest.mark.parametrize("metric", ["decode_tokens_per_s", "prefill_tokens_per_s", "peak_memory_bytes"])
def test_what_cannot_be_is_counted_by_no_gate(name: str, metric: str) -> None:
    record = structs.replace(IMPOSSIBLE[name], run_id="liar", created=(START + timedelta(hours=1)).isoformat())
    assert impossible(record)
    budget = Budget(
        metric=metric, model=NAME, **{"ceiling" if "bytes" in metric else "floor": 1e15 if "bytes" in metric else 1e-9}
    )

    kept, faults, left_out = evidence_of([run("good"), record], now=START + timedelta(days=2))

    assert [one.run_id for one in kept] == ["good"]
    assert left_out[0][0] == "liar" and "cannot be" in left_out[0][1]
    assert judged([budget], kept, faults=faults).answer == "could not run"


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_cannot_be_is_headlined_by_no_page(name: str) -> None:
    pytest.importorskip("jinja2")
    page = render(page_of([IMPOSSIBLE[name]]))
    (heading,) = re.findall(r"<h1>(.*?)</h1>", page, re.S)
    assert "cannot be" in heading
    assert 'class="figure"' not in heading


@pytest.mark.parametrize("name", ["default", "grid-evening", "grid-zen3", "grid-pulled"])
def test_real_records_may_be(name: str) -> None:
    path = Path(__file__).parents[3] / "reports" / "check" / f"{name}.json"
    document = msgspec.json.decode(path.read_bytes())
    records = [from_document(one, path) for one in (document if isinstance(document, list) else [document])]
    assert {record.run_id: impossible(record) for record in records if impossible(record)} == {}


def test_a_copied_run_is_one_run_and_the_future_is_none() -> None:
    first = run("a")
    copies = [structs.replace(first, run_id=f"c{n}") for n in range(10)]
    future = run("f", 24 * 365 * 10)

    kept, faults, left_out = evidence_of([first, *copies, future], now=START + timedelta(days=2))

    assert [one.run_id for one in kept] == ["a"]
    assert dict(left_out)["c3"] == "its samples are those of a"
    assert "still to come" in dict(left_out)["f"]
    assert faults and "f: " in faults[0]


def command(folder: Path, *words: str, records: tuple[Record, ...] = (), error: str = "") -> None:
    """A command that writes its manifest, then its records, or ends with an error."""
    with suppress(HarnessError), manifest(folder, words, [words[1]]):
        for record in records:
            save(record, folder / f"{record.run_id}.json")
            noted(record)
        refuse(error)


def refuse(error: str) -> None:
    if error:
        raise CouldNotRunError(error)


def manifests(folder: Path) -> list[Any]:
    return [load_manifest(path) for path in sorted(folder.glob(f"*{ENDING}"))]


@pytest.mark.parametrize(
    "today", [("run", NAME, "--runtime", "mlx"), ("run", NAME), ("run", NAME, "--memory-limit", "1MB")]
)
def test_a_command_that_made_no_record_is_not_made_good_by_an_older_one(tmp_path: Path, today: tuple[str, ...]) -> None:
    command(tmp_path, "run", NAME, records=(run("yesterday"),))
    command(tmp_path, "run", NAME, *today, error="mlx is not installed")

    kept, faults, left_out = evidence_of([run("yesterday")], manifests(tmp_path), now=START + timedelta(days=2))

    assert "mlx is not installed" in faults[0]
    assert dict(left_out) == {"yesterday": left_out[0][1]} and not kept
    assert judged([FLOOR], kept, faults=faults).answer == "could not run"


def test_repeated_runs_of_one_command_and_build_count_together(tmp_path: Path) -> None:
    runs = [run(f"r{n}", n / 60) for n in range(3)]
    for one in runs:
        command(tmp_path, "run", NAME, records=(one,))
    kept, faults, left_out = evidence_of(runs, manifests(tmp_path), now=START + timedelta(days=2))
    assert (len(kept), faults, left_out) == (3, [], [])


def test_a_killed_command_has_not_ended(tmp_path: Path) -> None:
    command(tmp_path, "run", NAME, records=(run("a"),))
    (path,) = tmp_path.glob(f"*{ENDING}")
    path.write_text(path.read_text().replace('"exit_status": 0', '"exit_status": null'))
    _, faults, _ = evidence_of([run("a")], manifests(tmp_path), now=START + timedelta(days=2))
    assert "has not ended" in faults[0]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[dict[str, str]]:
    yield {**os.environ, "EDGE_HARNESS_HOME": str(tmp_path / "home"), "NO_COLOR": "1"}


def harness(home: dict[str, str], folder: Path, *words: str) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "harness", *words]
    return subprocess.run(command, env=home, cwd=folder, capture_output=True, check=False, timeout=120)


@pytest.mark.parametrize(
    "refused",
    [
        ("nothing.gguf",),
        ("nothing.gguf", "--runtime", "server:http://127.0.0.1:9"),
        ("nothing.gguf", "--runtime", "mlx"),
    ],
)
def test_readmes_command_is_red_after_a_run_that_failed(
    home: dict[str, str], tmp_path: Path, refused: tuple[str, ...]
) -> None:
    """Processes from end to end: yesterday's good record, today's refused run, the budgets that `gate init` writes."""
    save(structs.replace(GOOD, run_id="yesterday"), tmp_path / "results" / "yesterday.json")
    assert harness(home, tmp_path, "gate", "init", "results", "-o", "b.toml").returncode == 0
    ran = harness(home, tmp_path, "run", "nothing.gguf", *refused, "--out", "results")
    assert ran.returncode in {2, 4}

    done = harness(home, tmp_path, "gate", "--budget", "b.toml", "results")

    assert done.returncode == 4, done.stdout.decode()
    assert done.stdout.startswith(b"NO EVIDENCE")
    assert b"nothing.gguf" in done.stdout


def test_annotations_of_a_workflow_are_read_by_its_rule(home: dict[str, str], tmp_path: Path) -> None:
    """The runner takes a line for a command that begins with `::name ` and holds `::` behind it."""
    save(GOOD, tmp_path / "good.json")
    (tmp_path / "b.toml").write_text('[[budget]]\nmetric = "decode_tokens_per_s"\nfloor = 1e6\n')
    done = harness(home, tmp_path, "gate", "--budget", "b.toml", "good.json", "--format", "github")
    found = re.findall(rb"^::(error|warning|notice) ([^:\n]*)::(.+)$", done.stdout, re.M)
    assert done.returncode == 1
    assert [kind for kind, _, _ in found] == [b"error"]
    assert b"file=b.toml" in found[0][1] and b"line=1" in found[0][1]


def test_junit_of_the_process_is_read_by_another_reader(home: dict[str, str], tmp_path: Path) -> None:
    """The bytes of stdout, and those of the file of ``-o``, by junitparser: counts, names, file and line."""
    junitparser = pytest.importorskip("junitparser")
    save(GOOD, tmp_path / "good.json")
    floor = '[[budget]]\nmetric = "decode_tokens_per_s"\nfloor = {}\n'
    missing = f'{floor.format(1)}model = "<&\\u0007]]>"\n'
    (tmp_path / "b.toml").write_text(floor.format(1e6) + floor.format(1) + missing)
    words = ("gate", "--budget", "b.toml", "good.json", "--format", "junit", "-o", "gate.xml")
    done = harness(home, tmp_path, *words)

    assert done.returncode == 1
    for data in filter(None, (done.stdout, (tmp_path / "gate.xml").read_bytes())):
        seen = junitparser.JUnitXml.fromstring(data)
        (suite,) = seen if isinstance(seen, junitparser.JUnitXml) else [seen]
        kinds = [[type(one).__name__ for one in case.result] for case in suite]
        assert (suite.tests, suite.failures, suite.errors) == (3, 1, 1)
        assert kinds == [["Failure"], [], ["Error"]]
        assert [case._elem.get("line") for case in suite] == ["1", "4", "7"]


def test_hidden_folders_and_links_are_named(home: dict[str, str], tmp_path: Path) -> None:
    results = tmp_path / "results"
    save(GOOD, results / "good.json")
    save(structs.replace(GOOD, run_id="hidden"), results / ".cache" / "hidden.json")
    (results / "link.json").symlink_to(results / "good.json")
    (tmp_path / "b.toml").write_text('[[budget]]\nmetric = "peak_memory_bytes"\nceiling = 1e12\n')
    done = harness(home, tmp_path, "gate", "--budget", "b.toml", "results")
    assert done.returncode == 0
    assert b"hidden.json (hidden)" in done.stderr and b"link.json (a link)" in done.stderr
