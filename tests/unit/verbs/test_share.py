"""A run as rows that the published tables take: what they say, and what they do not tell of anybody."""

import csv
import io
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from bench.merge import main
from harness.answer.nearest import model_of
from harness.cli.learn import learn as COMMAND
from harness.core.errors import RefusedError
from harness.records.imports import read_results
from harness.speed.published.rows import read_rows
from harness.verbs.share import shared

FILE = "reports/check/default.json"
(RECORD, *_) = read_results(Path(FILE))


def test_a_run_is_rows_that_the_reader_of_published_ones_takes(tmp_path: Path) -> None:
    done = CliRunner().invoke(COMMAND, ["--share", FILE])
    assert done.exit_code == 0
    assert done.stdout == shared([RECORD])
    (tmp_path / "rows.csv").write_text(done.stdout)
    read = read_rows(tmp_path / "rows.csv", model_of)
    assert {row.phase for row in read} == {"decode", "prefill"}
    clean = RECORD.believed("decode")
    speeds = sorted(sample.token_count / sample.duration_s for sample in clean)
    decode = [row for row in read if row.phase == "decode"]
    assert any(row.measured == pytest.approx(speeds[len(speeds) // 2], rel=1e-4) for row in decode)


def test_nothing_of_the_person_is_in_a_row() -> None:
    words = (
        "edge-harness",
        "run",
        "/home/ada/m.gguf",
        "C:\\Users\\ada\\m.gguf",
        "--on=ssh://ada@host",
        "adb://R58N123",
        "-r",
        "3",
    )
    (first, *_) = csv.DictReader(io.StringIO(shared([replace(RECORD, command=words)])))
    text = " ".join(first.values())
    assert socket.gethostname() not in text
    assert "/" not in first["notes"] + first["build"] + first["device"]
    assert first["notes"].startswith("edge-harness run ... ... ... ... -r 3; ")
    assert first["source"] == f"shared:{RECORD.machine.fingerprint}"
    assert "llama.cpp" in first["build"]


def test_a_run_on_a_card_is_a_row_of_the_card(tmp_path: Path) -> None:
    machine = replace(RECORD.machine, device="NVIDIA GeForce RTX 3090")
    record = replace(RECORD, machine=machine, scenario=replace(RECORD.scenario, api="cuda"))
    (first, *_) = csv.DictReader(io.StringIO(shared([record])))
    assert (first["chip"], first["backend"]) == ("NVIDIA GeForce RTX 3090", "cuda")
    # 19.5 Gbit/s over 384 bits, by NVIDIA's data sheet 936 GB/s; without it nobody can hold the row against the law
    assert first["memory_bandwidth_gb_s"] == "936.0"
    (tmp_path / "rows.csv").write_text(shared([record]))
    done = CliRunner().invoke(main, [str(tmp_path / "rows.csv")])
    assert "not used" not in done.output


def test_a_run_that_failed_or_was_disturbed_is_not_shared() -> None:
    for record in (replace(RECORD, outcome="crashed"), replace(RECORD, samples=())):
        with pytest.raises(RefusedError, match="no clean speed"):
            shared([record])
