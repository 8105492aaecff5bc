"""Results of other tools, from samples of their own files."""

import json

import msgspec
import pytest
from report_records import record

from harness.domain.quality import CalibrationChange, Change, TextScore
from harness.domain.record import ModelIdentity, RunRecord
from harness.domain.result import Quality
from harness.errors import BadDataError
from harness.records.imports import read_results
from harness.records.metrics import metric_values
from harness.report.figures import ladder

LLAMA_BENCH = {
    "build_commit": "0c1e570", "build_number": 1, "cpu_info": "AMD EPYC", "gpu_info": "", "backends": "CPU",
    "model_filename": "/home/someone/models/smollm2-135m-q4_1.gguf", "model_type": "llama 256M Q4_1",
    "model_size": 96576768, "model_n_params": 134515008, "n_threads": 2, "type_k": "f16", "n_prompt": 0, "n_gen": 16,
    "n_depth": 0, "test_time": "2026-11-25T00:48:08Z", "avg_ns": 110268776, "avg_ts": 145.108270,
    "samples_ns": [109515262, 109859543, 111431523], "a_field_of_next_year": [1],
}  # fmt: skip
"""What llama-bench of build 0c1e570 printed for ``-n 16 -r 3``; paths and one field changed."""

GUIDELLM = {
    "args": {"model": "org/tiny"},
    "benchmarks": [
        {
            "start_time": 1767225600.0,
            "metrics": {
                "time_to_first_token_ms": {
                    "successful": {"mean": 260.0, "median": 250.0, "percentiles": {"p99": 400.0}}
                },
                "inter_token_latency_ms": {"successful": {"median": 20.0}},
                "output_tokens_per_second": {"successful": {"median": 48.0}},
            },
        }
    ],
}


NOTHING = Change(value=0.0, low=0.0, high=0.0)
SAME = CalibrationChange(
    row_count=510, accuracy=0.5, mean_confidence=0.5, ece=0.0, smooth_ece=0.0, nll=2.25, nll_change=NOTHING,
    ece_change=NOTHING, smooth_ece_change=NOTHING, accuracy_change=NOTHING, lost_count=0, gained_count=0,
)  # fmt: skip


def write(tmp_path, name: str, *documents) -> object:
    path = tmp_path / name
    path.write_text("\n".join(json.dumps(d) for d in documents))
    return path


@pytest.mark.parametrize("as_list", [False, True])
def test_llama_bench(tmp_path, as_list: bool) -> None:
    prefill = LLAMA_BENCH | {"n_prompt": 64, "n_gen": 0, "samples_ns": [200_000_000]}
    rows = [[LLAMA_BENCH, prefill]] if as_list else [LLAMA_BENCH, prefill]

    (run,) = read_results(write(tmp_path, "x.json", *rows))

    # 16 tokens in 0.109515262 s, and 64 in 0.2 s.
    assert metric_values(run, "decode_tokens_per_s")[0] == pytest.approx(16 / 0.109515262)
    assert metric_values(run, "prefill_tokens_per_s") == [pytest.approx(320.0)]
    assert (run.model.name, run.model.quant, run.engine.build) == ("smollm2-135m-q4_1", "Q4_1", "0c1e570")
    assert "someone" not in repr(run)


def test_llama_bench_without_samples_uses_its_average(tmp_path) -> None:
    row = {k: v for k, v in LLAMA_BENCH.items() if k not in {"samples_ns", "avg_ns"}}

    (run,) = read_results(write(tmp_path, "x.jsonl", row))

    assert metric_values(run, "decode_tokens_per_s") == [pytest.approx(145.108270)]


def test_llama_bench_with_samples_of_no_time_is_refused(tmp_path) -> None:
    with pytest.raises(BadDataError, match="found no time"):
        read_results(write(tmp_path, "x.json", LLAMA_BENCH | {"samples_ns": [0]}))


def test_guidellm(tmp_path) -> None:
    (run,) = read_results(write(tmp_path, "x.json", GUIDELLM))

    assert metric_values(run, "ttft_s") == [pytest.approx(0.25)]
    assert metric_values(run, "decode_tokens_per_s") == [pytest.approx(50.0)]
    assert (run.model.name, run.created) == ("tiny", "2026-01-01T00:00:00+00:00")


def test_own_records_alone_and_listed(tmp_path) -> None:
    import msgspec

    one, two = (msgspec.to_builtins(record(run_id=i)) for i in ("a", "b"))

    assert [r.run_id for r in read_results(write(tmp_path, "a.json", one))] == ["a"]
    assert [r.run_id for r in read_results(write(tmp_path, "b.json", [one, two]))] == ["a", "b"]
    assert [r.run_id for r in read_results(write(tmp_path, "c.json", {"device": 1, "records": [one, two]}))] == [
        "a",
        "b",
    ]
    assert [r.run_id for r in read_results(write(tmp_path, "d.json", {"record": two, "operations": []}))] == ["b"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", "[[[[", '{"benchmarks": [1]}', "\xff", '{"schema_version": 1}']
)
def test_anything_else_is_refused_in_words(tmp_path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text, encoding="latin-1")

    with pytest.raises(BadDataError):
        read_results(path)


def change(value: float, low: float, high: float) -> Change:
    return Change(value=value, low=low, high=high)


def rung(quant: str, kl: float, *, sha256: str, calibration: CalibrationChange = SAME, **more: object) -> RunRecord:
    """The record of a rung's quality."""
    score = TextScore(token_count=510, perplexity=9.5, perplexity_error=0.8, kl_divergence=kl)
    result = Quality(
        text="t.txt", chunk_count=2, reference_quant="F16", bits_per_weight=8.5, types={"Q8_0": 0.75, "F32": 0.25},
        score=score, calibration=calibration,
    )  # fmt: skip
    model = ModelIdentity(
        name="tiny", quant=quant, size_bytes=1_500_000_000, sha256=sha256, architecture="llama", parameter_count=1
    )
    given = {"workload": "quality", "model": model, "result": result, "samples": (), "run_id": quant}
    return record(**(given | more))


def test_the_ladders_figure_joins_quality_and_speed_of_a_file() -> None:
    moved = msgspec.structs.replace(
        SAME, ece=0.04, nll_change=change(-0.002, -0.004, 0.001), ece_change=change(0.003, 0.001, 0.006),
        lost_count=7, gained_count=5,
    )  # fmt: skip
    first, second = rung("Q8_0", 0.01, sha256="a", calibration=moved), rung("Q2_K", 1.0, sha256="b")
    timed = record(run_id="speed", model=second.model)
    failed = record(run_id="f", workload="quality", outcome="failed", detail="no room", result=None, samples=())

    drawn = ladder([first, second, timed, failed])

    same = ("+0.0000 [+0.0000, +0.0000]", "+0.0000 [+0.0000, +0.0000]", "0: 0 + 0")
    moved_cells = ("-0.0020 [-0.0040, +0.0010]", "*+0.0030 [+0.0010, +0.0060]", "12: 7 + 5")
    # Clean samples of the shared record run at 10, 12 and 11 tokens/s; as small, closer and slower is no less good.
    shared = ("1500", "8.50", "Q8_0 75%")
    assert [row[:8] for row in drawn.rows] == [
        ("tiny", "Q8_0", *shared, "", "", ""),
        ("tiny", "Q2_K", *shared, "11.0", drawn.rows[1][6], drawn.rows[1][7]),
    ]
    assert [row[8:] for row in drawn.rows] == [
        ("9.5000 ± 0.800", "0.0100", "", "yes", *moved_cells),
        ("9.5000 ± 0.800", "1.0000", "", "yes", *same),
    ]
    # One mark over the size and one over the speed, on a wide and on a narrow page.
    assert drawn.svg.count("<title>tiny Q2_K: 1500 MB, KL 1.0000 nats") == 4
    assert ladder([failed]) is None
