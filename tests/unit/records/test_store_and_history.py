"""Records come back as they went in, and nothing else comes in."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.core.errors import BadDataError, CouldNotRunError, HarnessError, RefusedError
from harness.core.record import MachineFingerprint, ModelIdentity, Record, Sample, Validity
from harness.core.scenario import Scenario
from harness.records import store
from harness.records.history import History
from harness.verbs.results import gather

KEPT = sorted((Path(__file__).parents[2] / "records").glob("v*.json"))

MACHINE = MachineFingerprint(
    system="Linux", kernel="6", cpu_model="c", core_count=2, ram_bytes=1, memory_limit_bytes=1, isa=(), python="3"
)


def record(run_id: str = "20260101T000000000Z-00000000", **fields: Any) -> Record:
    given: dict[str, Any] = {
        "schema_version": store.SCHEMA_VERSION,
        "run_id": run_id,
        "created": "2026-01-01T00:00:00.000Z",
        "harness_version": "0",
        "command": ("edge-harness",),
        "workload": "generate",
        "machine": MACHINE,
        "scenario": Scenario(),
        "outcome": "ok",
    }
    return Record(**(given | fields))


times = st.just(0.0) | st.floats(1e-9, 1e6)
samples = st.builds(
    Sample,
    phase=st.sampled_from(["load", "prefill", "decode"]),
    label=st.text(max_size=20),
    token_count=st.integers(0, 10**6),
    duration_s=times,
    started_unix_s=times,
    token_times_s=st.lists(times, max_size=5).map(tuple),
    warm_up=st.booleans(),
    validity=st.builds(Validity, cpu_stall_ratio=st.none() | times, doubts=st.lists(st.text(), max_size=2).map(tuple)),
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(samples, max_size=3).map(tuple), st.text(max_size=50))
def test_round_trip(given_samples: tuple[Sample, ...], detail: str) -> None:
    before = record(samples=given_samples, detail=detail, extra={"n": [1, {"deep": None}]})

    assert store.decode(store.encode(before), "memory") == before


def test_file_round_trip_leaves_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "r.json"
    store.save(record(), path)
    store.save(record(detail="again"), path)

    assert store.load(path).detail == "again"
    assert [p.name for p in path.parent.iterdir()] == ["r.json"]


@pytest.mark.parametrize("path", KEPT, ids=lambda p: p.name)
def test_files_that_are_kept_load(path: Path) -> None:
    found = store.load(path)
    assert found.samples
    assert found.result is not None
    assert found.scenario.api in {"", "cpu"}
    assert store.decode(store.encode(found), path) == found


def test_a_file_is_kept_of_this_version() -> None:
    assert {p.stem.split("-")[0] for p in KEPT} == {f"v{store.SCHEMA_VERSION}"}


def change(**fields: Any) -> bytes:
    return json.dumps(json.loads(store.encode(record())) | fields).encode()


LEVEL = {"offered": 1, "label": "u", "duration_s": 1, "completed_count": 1, "good_count": 1}
LEVEL |= {"prompt_tokens": 1, "cached_tokens": 0, "new_tokens": 1}
WINDOW = {"since_start_s": 0, "duration_s": 1, "token_count": 1}
SOAK = {"kind": "soak", "minutes": 1, "duty_ratio": 1, "burst_tokens_per_s": 1, "sustained_tokens_per_s": 1}
SAMPLE = {"phase": "decode", "label": "tg1", "token_count": 1, "duration_s": 1.0, "started_unix_s": 0.0}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(b"", "no JSON", id="empty"),
        pytest.param(b"[1]", "a JSON object", id="no object"),
        pytest.param(b"\xff\xfe{}", "no JSON", id="no UTF-8"),
        pytest.param(b"[" * 100_000, "", id="deep"),
        pytest.param(change(extra={})[:-1] + b', "extra":' + b"[" * 50_000, "", id="deep inside"),
        pytest.param(change(schema_version=99), "update edge-harness", id="from the future"),
        pytest.param(change(schema_version=1), "measure again what is older", id="from before"),
        pytest.param(change(schema_version=0), "schema_version", id="never was"),
        pytest.param(change(schema_version=True), "schema_version", id="no number"),
        pytest.param(change(outcome="great"), "outcome", id="unknown outcome"),
        pytest.param(change(speed=12), "speed", id="unknown key"),
        pytest.param(change(run_id="../../etc/passwd"), "run_id", id="path as name"),
        pytest.param(change(samples=[SAMPLE | {"duration_s": -1}]), "samples[0].duration_s", id="negative time"),
        pytest.param(change(samples=[SAMPLE | {"token_count": -1}]), "samples[0].token_count", id="negative count"),
        pytest.param(change(samples=[SAMPLE | {"duration_s": "1"}]), "samples[0].duration_s", id="text for a number"),
        pytest.param(change().replace(b'"ok"', b"NaN"), "no JSON", id="NaN"),
        pytest.param(change(samples=[SAMPLE | {"duration_s": 5e-324}]), "below a nanosecond", id="a time that is none"),
        pytest.param(
            change(samples=[SAMPLE | {"started_unix_s": 1e308}]), "samples[0].started_unix_s", id="no clock's"
        ),
        pytest.param(change(result={"kind": "load", "levels": []}), "result.levels", id="load without a level"),
        *(
            pytest.param(change(result={"kind": "load", "levels": [LEVEL | {key: value}]}), key, id=f"{key} {value}")
            for key, value in (("duration_s", 0), ("duration_s", 5e-324), ("new_tokens", -1), ("completed_count", 1e16))
        ),
        *(
            pytest.param(change(result=SOAK | {"windows": [WINDOW | {key: value}]}), key, id=f"window {key} {value}")
            for key, value in (("duration_s", 0.0), ("token_count", -1), ("token_count", 2**63))
        ),
    ],
)
def test_what_is_no_record_is_refused_with_its_place(data: bytes, words: str) -> None:
    with pytest.raises(BadDataError) as caught:
        store.decode(data, "stranger.json")
    assert "stranger.json" in str(caught.value)
    assert words in str(caught.value)


@given(st.binary(max_size=200) | st.integers(0, 600).map(lambda n: store.encode(record())[:n]))
def test_no_bytes_give_anything_but_a_record_or_one_error(data: bytes) -> None:
    with contextlib.suppress(BadDataError):
        store.decode(data, "stranger.json")


def test_size_is_limited_before_reading(tmp_path: Path) -> None:
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate(store.RECORD_MAX_BYTES + 10)
    with pytest.raises(BadDataError, match="more than"):
        store.load(path)
    with pytest.raises(BadDataError, match="regular"):
        store.load(tmp_path)
    with pytest.raises(BadDataError, match="no such file"):
        store.load(tmp_path / "none.json")


def test_a_folder_that_cannot_be_written_is_an_error_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CouldNotRunError, match="could not write"):
        store.save(record(), tmp_path / "file" / "r.json")


def test_history_keeps_lists_and_finds(tmp_path: Path) -> None:
    history = History(tmp_path / "h.sqlite")
    model = ModelIdentity(name="m", quant="Q4_0", size_bytes=1, sha256="", architecture="llama", parameter_count=1)
    history.extend([record("a-1", created="2026-01-01T00:00:00.000Z")], cell="x")
    history.extend([record("a-2", created="2026-01-02T00:00:00.000Z", model=model)], cell="y")
    history.extend([record("b-1", created="2026-01-03T00:00:00.000Z", outcome="interrupted")], cell="x")
    history.extend([record("b-1", detail="a second one of the same name")])

    assert [e.run_id for e in history.entries()] == ["b-1", "a-2", "a-1"]
    assert [e.run_id for e in history.entries(model="m")] == ["a-2"]
    assert [e.run_id for e in history.entries(outcome="interrupted", limit=1)] == ["b-1"]
    assert history.get("b").detail == ""
    assert history.get("a-2").model == model
    found = history.of_cell("x")
    assert found is not None and found.run_id == "a-1"  # the interrupted one does not count
    assert history.of_cell("z") is None
    assert (history.count(), history.faults()) == (3, [])
    for wrong in ("a", "c", ""):
        with pytest.raises(RefusedError):
            history.get(wrong)


def test_a_file_that_is_no_history_is_named(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(HarnessError, match=r"h\.sqlite"):
        History(path).extend([record()])
    newer = tmp_path / "n.sqlite"
    with sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(RefusedError, match="newer"):
        History(newer).count()


WRITER = """
import sys
from pathlib import Path
import msgspec
from harness.core.record import Record
from harness.records.history import History
record = msgspec.json.decode(sys.stdin.buffer.read(), type=Record)
history = History(Path(sys.argv[1]))
for n in range(100000):
    history.extend([msgspec.structs.replace(record, run_id=f"r-{n:06d}")])
    print(n, flush=True)
"""


def test_a_database_is_no_results_and_left_as_it_is(tmp_path: Path) -> None:
    """Histories are joined by what one exports: no database of a stranger is opened."""
    path = tmp_path / "theirs.sqlite"
    History(path).extend([record()])
    before = path.read_bytes()
    with pytest.raises(BadDataError, match=path.name):
        gather([str(path)])
    assert path.read_bytes() == before


NO_COUNTS = (-1, 10**30, 1.5, "2", True)
COUNTED = [
    *(("scenario", name) for name in ("context_tokens", "prompt_tokens", "new_tokens", "depth_tokens", "batch_count")),
    *(("scenario", name) for name in ("ubatch_tokens", "thread_count")),
    *(("machine", name) for name in ("core_count", "ram_bytes", "memory_limit_bytes")),
    *(("model", name) for name in ("size_bytes", "parameter_count")),
    *(("memory", name) for name in ("peak_rss_bytes", "peak_anonymous_bytes")),
    *(("engine", "thread_count"), ("samples", "token_count")),
]


@pytest.mark.parametrize(("part", "field"), COUNTED)
@pytest.mark.parametrize("value", NO_COUNTS)
def test_a_count_that_no_run_has_is_refused_by_its_field(part: str, field: str, value: object) -> None:
    document = json.loads((KEPT[0].parent / "v2-generate.json").read_text())
    place = document[part][0] if part == "samples" else document[part]
    place[field] = value
    with pytest.raises(BadDataError, match=rf"r\.json: {part}.*{field}: found .*expected ") as caught:
        store.decode(json.dumps(document).encode(), "r.json")
    assert "Infinity" not in str(caught.value)


@pytest.mark.parametrize("when", ["yesterday", "", "9999-99-99T99:99:99Z", "\x1b[31m"])
def test_a_record_says_when_it_was_made(when: str) -> None:
    with pytest.raises(BadDataError, match=r"created: found .*expected a time"):
        store.decode(change(created=when), "r.json")


def test_a_killed_writer_loses_nothing_it_reported(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    for stop_after in (1, 7, 20):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert writer.stdin and writer.stdout
        writer.stdin.write(store.encode(record()))
        writer.stdin.close()
        reported = -1
        for line in writer.stdout:
            reported = int(line)
            if reported >= stop_after:
                os.kill(writer.pid, signal.SIGKILL)
                break
        writer.wait()
        writer.stdout.close()

        history = History(path)
        assert history.faults() == []
        assert history.count() >= reported + 1
        assert history.get(f"r-{reported:06d}").outcome == "ok"
