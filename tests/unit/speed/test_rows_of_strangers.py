"""``validate --rows`` with files that others wrote: their encodings, gaps, names nobody knows, and their faults."""

import csv
import json
from importlib.resources import files
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from bench.validation import of_file
from harness.cli.validate import validate as COMMAND
from harness.core.errors import BadDataError

DATA = files("harness") / "published" / "data"
OTHERS = files("bench") / "rows/data"
FILE = files("harness.speed") / "data/coefficients.json"


def shipped(name: str) -> list[dict[str, str]]:
    folder = DATA if name == "decode.csv" else OTHERS
    return list(csv.DictReader((folder / name).read_text().splitlines()))


SPEEDS = [r for r in shipped("decode.csv")[::50] if r["model_bytes"] and r["memory_bandwidth_gb_s"]]


def write(path: Path, rows: list[dict[str, str]], columns: list[str] | None = None, **how: str) -> Path:
    with path.open("w", newline="", encoding=how.get("encoding", "utf-8")) as file:
        writer = csv.DictWriter(
            file, columns or list(rows[0]), lineterminator=how.get("end", "\n"), extrasaction="ignore"
        )
        writer.writeheader()
        writer.writerows(rows)
    return path


def run(path: Path, *more: str) -> dict:
    result = CliRunner().invoke(COMMAND, ["--rows", str(path), "--json", *more], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return json.loads(result.output)


def judged(path: Path) -> dict:
    """A file of any kind of rows, as the leave-outs of the other kinds read it."""
    return msgspec.to_builtins(of_file(path))


def test_a_files_form_changes_nothing(tmp_path):
    plain = run(write(tmp_path / "plain.csv", SPEEDS))
    assert plain["groups"]["dense"]["votes_count"] > 10
    columns = list(SPEEDS[0])
    for name, rows, order, how in (
        ("bom", SPEEDS, columns, {"encoding": "utf-8-sig", "end": "\r\n"}),
        ("order", SPEEDS, columns[::-1], {}),
        ("extra", [{**r, "mood": "fine"} for r in SPEEDS], [*columns, "mood"], {}),
        ("upper", [{k.upper(): v for k, v in r.items()} for r in SPEEDS], [c.upper() for c in columns], {}),
        ("trust", [{**r, "trust": f" {r['trust'].lower()} "} for r in SPEEDS], columns, {}),
    ):
        assert run(write(tmp_path / f"{name}.csv", rows, order, **how))["groups"] == plain["groups"], name


def test_a_row_twice_is_one_vote(tmp_path):
    once, twice = run(write(tmp_path / "1.csv", SPEEDS)), run(write(tmp_path / "2.csv", SPEEDS + SPEEDS))
    for one, two in zip(once["groups"].values(), twice["groups"].values(), strict=True):
        assert (one["votes_count"], one["median_ratio"]) == (two["votes_count"], two["median_ratio"])
        assert two["rows_count"] == 2 * one["rows_count"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"memory_bandwidth_gb_s": ""}, "no bandwidth"),
        ({"tokens_per_s": "NaN"}, "no speed"),
        ({"test": "perplexity"}, "unknown test"),
        ({"model": "Nobody-99B", "model_bytes": "", "quant": ""}, "no model bytes"),
        ({"model": "Nobody", "arch": "moe", "active_params_b": ""}, "no active parameters"),
    ],
)
def test_gaps_are_counted_by_reason(tmp_path, change, reason):
    # a large unknown model is taken for the mixture of experts nearest in size: nothing is missing there
    rows = [{**r, **change} for r in SPEEDS if float(r["params_b"]) < 10]
    found = run(write(tmp_path / "rows.csv", rows))
    assert found["unpredictable"][reason] == found["rows_count"]
    assert found["groups"] == {}


def test_names_nobody_knows_are_still_predicted(tmp_path):
    change = {"chip": "Frobnicator 9000", "backend": "warp", "quant": "Q13_Z", "model": "Nobody", "runtime": "novel"}
    change["notes"] = ""  # one of the rows says that its card overflows: that is refused whatever its names are
    found = run(write(tmp_path / "rows.csv", [{**r, **change} for r in SPEEDS]))
    assert found["unpredictable"] == {}
    assert found["groups"]["dense (all rows)"]["rows_count"] > 10


@pytest.mark.parametrize(
    ("name", "column", "found"),
    [
        ("decode.csv", "tokens_per_s", "-3"),
        ("decode.csv", "tokens_per_s", "291 (stock)"),
        ("decode.csv", "model_bytes", "4.9 GB"),
        ("spec_decode.csv", "speedup", "-1"),
        ("spec_decode.csv", "acceptance_rate", "many"),
        ("spec_decode.csv", "baseline_tps", "about 30"),
        ("streaming.csv", "storage_read_gb_s", "inf"),
        ("partial_offload.csv", "n_cpu_moe", "some"),
        ("batch.csv", "batch_npl", "8?"),
        ("energy.csv", "power_w", "250 W"),
    ],
)
def test_a_cell_that_is_no_number_refuses_its_row_alone(tmp_path, name, column, found):
    rows = shipped(name)[:12]
    whole = judged(write(tmp_path / "whole.csv", rows))
    rows[0] = {**rows[0], column: found}
    told = judged(write(tmp_path / "rows.csv", rows))
    assert told["unpredictable"][f"no number: {column} {found!r}"] == 1
    assert told["rows_count"] == whole["rows_count"]
    assert sum(told["unpredictable"].values()) <= sum(whole["unpredictable"].values()) + 1


@pytest.mark.parametrize(
    ("name", "column"), [("decode.csv", "backend"), ("spec_decode.csv", "gamma"), ("streaming.csv", "arch")]
)
def test_a_missing_column_is_named(tmp_path, name, column):
    rows = shipped(name)
    with pytest.raises(BadDataError, match=f"no column {column}"):
        judged(write(tmp_path / "rows.csv", rows, [c for c in rows[0] if c != column]))


def test_files_of_the_other_kinds_are_told_by_their_columns(tmp_path):
    speculation = judged(write(tmp_path / "s.csv", shipped("spec_decode.csv")[::2], encoding="utf-8-sig", end="\r\n"))
    check = speculation["groups"]["speculative speedup (all rows)"]
    assert check["rows_count"] > 100
    assert check["median_ratio"] < 0.2
    streaming = judged(write(tmp_path / "d.csv", shipped("streaming.csv")))["groups"]
    assert streaming["weights mapped from disk (all rows)"]["rows_count"] > 9
    # nothing but rows that lack what is needed
    bare = judged(write(tmp_path / "b.csv", [{**r, "storage_read_gb_s": ""} for r in shipped("streaming.csv")]))
    assert bare["groups"] == {}


def test_an_unknown_device_gets_what_others_pay_for_verification(tmp_path):
    rows = [{**r, "device": "Frobnicator"} for r in shipped("spec_decode.csv") if "TPU" not in r["device"]]
    check = judged(write(tmp_path / "s.csv", rows))["groups"]["speculative speedup (all rows)"]
    assert check["median_ratio"] < 0.25  # free verification would be off by 40 %
