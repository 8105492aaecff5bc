"""A run as rows that the published tables take: what they say, and what they do not tell of anybody."""

import csv
import io
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from bench.merge import main
from harness.app.published import model_of
from harness.app.share import shared
from harness.errors import RefusedError
from harness.published.rows import read_rows
from harness.records.imports import read_results

(RECORD, *_) = read_results(Path("reports/check/default.json"))


def test_a_run_is_rows_that_the_reader_of_published_ones_takes(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(shared([RECORD]))
    read = read_rows(tmp_path / "rows.csv", model_of)
    assert {row.phase for row in read} <= {"decode", "prefill"}
    clean = RECORD.believed("decode")
    speeds = sorted(sample.token_count / sample.duration_s for sample in clean)
    decode = [row for row in read if row.phase == "decode"]
    assert any(row.measured == pytest.approx(speeds[len(speeds) // 2], rel=1e-4) for row in decode)


def test_nothing_of_the_person_is_in_a_row() -> None:
    (first, *_) = csv.DictReader(io.StringIO(shared([RECORD])))
    text = " ".join(first.values())
    assert socket.gethostname() not in text
    assert "/" not in first["notes"] + first["build"] + first["device"]


def test_a_run_that_failed_or_was_disturbed_is_not_shared() -> None:
    with pytest.raises(RefusedError, match="ended well"):
        shared([replace(RECORD, outcome="crashed")])


def test_rows_that_contradict_the_law_are_named_and_not_added(tmp_path: Path) -> None:
    head = "chip,backend,device_class,memory_bandwidth_gb_s,model,params_b,quant,test,tokens_per_s,runtime,trust\n"
    row = "GeForce RTX 3090,cuda,gpu,936,Llama-3.1-8B,8.03,Q4_K_M,tg128,{},llama.cpp llama-bench,B\n"
    (tmp_path / "rows.csv").write_text(head + row.format(132) + row.format(12))
    done = CliRunner().invoke(main, [str(tmp_path / "rows.csv")])
    assert done.exit_code == 1
    assert "agrees" in done.output and "contradicts" in done.output
    assert "1 agree, 1 do not" in done.output
