"""Results of other tools, from samples of their own files."""

import json

import msgspec
import pytest
from report_records import record

from harness.core.errors import BadDataError, InputError
from harness.core.metric import metric_values
from harness.core.placement import Placement
from harness.core.quality import CalibrationChange, QualityChange, TextScore
from harness.core.record import ModelIdentity, Record
from harness.core.result import Quality
from harness.core.scenario import Scenario
from harness.records.imports import read_results
from harness.records.ladder import rungs_of
from harness.show.courses import ladders
from harness.verbs.learn import measurements_in

LLAMA_BENCH = {
    "build_commit": "0c1e570", "build_number": 1, "cpu_info": "AMD EPYC", "gpu_info": "", "backends": "CPU",
    "model_filename": "/home/someone/models/smollm2-135m-q4_1.gguf", "model_type": "llama 256M Q4_1",
    "model_size": 96576768, "model_n_params": 134515008, "n_threads": 2, "type_k": "f16", "n_prompt": 0, "n_gen": 16,
    "n_depth": 0, "test_time": "2026-11-25T00:48:08Z", "avg_ns": 110268776, "avg_ts": 145.108270,
    "samples_ns": [109515262, 109859543, 111431523], "a_field_of_next_year": [1],
}  # fmt: skip
"""What llama-bench of build 0c1e570 printed for ``-n 16 -r 3``; paths and one field changed."""

NOTHING = QualityChange(value=0.0, low=0.0, high=0.0)
SAME = CalibrationChange(
    row_count=510, nll_change=NOTHING,
    ece_change=NOTHING, lost_count=0, gained_count=0,
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


@pytest.mark.parametrize(
    ("layers", "api", "is_whole"), [(99, "CUDA", True), (-1, "CUDA", True), (10, "CUDA", False), (0, "CPU", True)]
)
def test_a_device_learns_nothing_of_layers_that_lay_elsewhere(tmp_path, layers: int, api: str, is_whole: bool) -> None:
    path = write(tmp_path, "x.json", LLAMA_BENCH | {"n_gpu_layers": layers, "backends": api})
    if is_whole:
        ((_, speed),) = measurements_in(path)
        assert (speed.test, speed.tokens_per_s) == ("tg16", pytest.approx(16 / 0.109859543, rel=1e-5))  # the median
    else:
        with pytest.raises(InputError, match="whole model on one device"):
            measurements_in(path)


@pytest.mark.parametrize(
    ("label", "more", "scenario", "tests"),
    [
        ("tg10", {}, {}, ["tg10"]),
        ("tg10 @ d2048", {}, {"depth_tokens": 2048}, ["tg10 @ d2048"]),
        ("tg10 b4", {}, {"batch_count": 4}, []),
        ("tg10 greedy", {}, {}, []),
        ("tg10", {"workload": "stream"}, {}, []),
        ("tg10 @ plain", {"workload": "stream"}, {}, []),
        ("tg @ 4 users", {"workload": "load"}, {}, []),
        ("tg10", {}, {"api": "cuda", "placement": Placement(gpu_layers=10)}, []),
        ("tg10", {}, {"api": "cuda", "placement": Placement(cpu_moe=24)}, []),
        ("tg10", {}, {"kv_type": "Q8_0"}, []),
    ],
)
def test_a_device_learns_of_plain_runs_alone(
    tmp_path, label: str, more: dict, scenario: dict, tests: list[str]
) -> None:
    run = record(scenario=Scenario(**scenario), **more)
    samples = tuple(msgspec.structs.replace(s, label=label) for s in run.samples)
    path = write(tmp_path, "x.json", msgspec.to_builtins(msgspec.structs.replace(run, samples=samples)))
    if tests:
        assert [(one.test, one.tokens_per_s) for _, one in measurements_in(path)] == [(tests[0], 11.0)]
    else:
        with pytest.raises(InputError, match="one sequence"):
            measurements_in(path)


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


def change(value: float, low: float, high: float) -> QualityChange:
    return QualityChange(value=value, low=low, high=high)


def rung(quant: str, kl: float, *, sha256: str, calibration: CalibrationChange = SAME, **more: object) -> Record:
    """The record of a rung's quality."""
    score = TextScore(token_count=510, perplexity=9.5, perplexity_error=0.8, kl_divergence=kl)
    result = Quality(
        text="t.txt", chunk_count=2, bits_per_weight=8.5, types={"Q8_0": 0.75, "F32": 0.25},
        score=score, calibration=calibration,
    )  # fmt: skip
    model = ModelIdentity(
        name="tiny", quant=quant, size_bytes=1_500_000_000, sha256=sha256, architecture="llama", parameter_count=1
    )
    given = {"workload": "quality", "model": model, "result": result, "samples": (), "run_id": quant}
    return record(**(given | more))


def test_the_ladder_names_the_fewest_bits_that_keep_the_next_token() -> None:
    """Of 1.5 GB, 0.6 and 0.3, with 98, 96 and 70 % the same next token, and 11, 20 and 30 tokens/s."""
    sizes = {"Q8_0": 1_500_000_000, "Q4_K_M": 600_000_000, "Q2_K": 300_000_000}
    kept = {"Q8_0": 0.98, "Q4_K_M": 0.96, "Q2_K": 0.70}
    speeds = {"Q8_0": 11.0, "Q4_K_M": 20.0, "Q2_K": 30.0}
    runs = []
    for quant, size in sizes.items():
        scored = rung(quant, 0.1, sha256=quant)
        model = scored.model.replace(size_bytes=size)
        score = scored.result.score.replace(top1_agreement_ratio=kept[quant])
        runs.append(scored.replace(model=model, result=scored.result.replace(score=score)))
        runs.append(record(run_id=f"speed-{quant}", model=model, rates=(speeds[quant],) * 3))
    failed = record(run_id="f", workload="quality", outcome="failed", detail="no room", result=None, samples=())

    (drawn,) = ladders([*runs, failed])

    # 0.6 / 1.5 and 20 / 11
    assert (
        drawn.label
        == "tiny, Q4_K_M: 0.4 times the size of Q8_0, 1.8 times the speed, and 96 % of the time the same next token."
    )
    assert [(row[0], row[0].kind) for row in drawn.rows] == [("Q8_0", ""), ("Q4_K_M", "speed"), ("Q2_K", "")]
    bars = drawn.rows[2][1:]
    assert ["low" in bar for bar in bars] == [False, False, True]
    assert 'aria-label="30"' in bars[1]
    assert ladders([failed]) == []


def test_a_rungs_speed_is_of_the_setting_of_the_others() -> None:
    scored = [rung(quant, 0.1, sha256=quant) for quant in ("Q8_0", "Q4_K_M", "Q2_K")]
    timed = [record(run_id=f"s{r.quant}", model=r.model, rates=(20.0,) * 3) for r in scored]
    deep = record(run_id="x", model=scored[1].model, scenario=Scenario(depth_tokens=8192), rates=(5.0,) * 3)
    broken = record(run_id="y", model=scored[2].model, outcome="timed out", detail="after 60 s", samples=())

    speeds = [(r.decode_tokens_per_s, r.speed_outcome) for r in rungs_of([*scored, *timed, deep, broken])]

    assert speeds == [(20.0, "ok")] * 3
    # a second ladder with other threads is the newer of two whole ones
    again = [msgspec.structs.replace(r, run_id=f"t{r.quant}", scenario=Scenario(thread_count=8)) for r in timed[:2]]
    slower = record(run_id="z", model=scored[2].model, scenario=Scenario(thread_count=8), rates=(10.0,) * 3)
    newer = rungs_of([*scored, *timed, deep, *again, slower])
    assert [r.decode_tokens_per_s for r in newer] == [20.0, 20.0, 10.0]
