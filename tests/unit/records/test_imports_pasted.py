"""What people paste: llama-bench's table and CSV, one line a model, answers of servers with their own timings."""

import json

import pytest

from harness.core.errors import BadDataError
from harness.records.imports import read_results
from harness.records.imports.pasted import from_text

# Columns and number formats as llama-bench prints them (llama.cpp, tools/llama-bench/README.md).
TABLE = """\
Device 0: NVIDIA GeForce RTX 4080, compute capability 8.9, VMM: yes
| model                          |       size |     params | backend    | ngl |          test |              t/s |
| ------------------------------ | ---------: | ---------: | ---------- | --: | ------------: | ---------------: |
| qwen2 7B Q4_0                  |   3.83 GiB |     7.62 B | CUDA       |  99 |         pp512 |  7340.20 ± 23.45 |
| qwen2 7B Q4_0                  |   3.83 GiB |     7.62 B | CUDA       |  99 | tg128 @ d2048 |    120.60 ± 0.43 |

build: 5154 (d24d5928)
"""


def rates(records):
    return {
        (s.phase, s.label): pytest.approx(s.token_count / s.duration_s, rel=1e-9) for r in records for s in r.samples
    }


def test_a_table_says_what_its_json_says():
    records = from_text(TABLE, "table.md")
    assert rates(records) == {("prefill", "pp512"): 7340.20, ("decode", "tg128 @ d2048"): 120.60}
    model = records[0].model
    assert (model.name, model.quant) == ("qwen2 7B Q4_0", "Q4_0")
    assert model.parameter_count == pytest.approx(7.62e9, rel=1e-6)
    assert model.size_bytes == pytest.approx(3.83 * 2**30, rel=1e-6)
    assert {r.scenario.api for r in records} == {"cuda"}


def test_csv_of_llama_bench():
    head = "build_commit,backends,model_type,model_size,model_n_params,n_threads,n_prompt,n_gen,n_depth,avg_ns,avg_ts"
    row = 'd24d5928,Metal,"gemma3 4B Q4_K - Medium",2489757856,3880099328,8,0,64,0,1000000000,64.0'
    (record,) = from_text(f"{head}\n{row}\n", "bench.csv")
    assert rates([record]) == {("decode", "tg64"): 64.0}
    assert record.model.quant == "Q4_K_M"


@pytest.mark.parametrize(
    ("line", "name", "quant", "expected"),
    [
        ("qwen3-8b Q4_K_M 512.3 45.1", "qwen3-8b", "Q4_K_M", {("prefill", "pp512"): 512.3, ("decode", "tg128"): 45.1}),
        ("Llama 3.1 8B, Q8_0, -, 20", "Llama 3.1 8B", "Q8_0", {("decode", "tg128"): 20}),
        ("# a remark\n\nx-1b Q4_0 100 -", "x-1b", "Q4_0", {("prefill", "pp512"): 100}),
        ("Qwen3-8B-Q4_K_M.gguf 1500 40", "Qwen3-8B", "Q4_K_M", {("prefill", "pp512"): 1500, ("decode", "tg128"): 40}),
        ("qwen3 8B Q4_K - Medium - 40 t/s", "qwen3 8B", "Q4_K_M", {("decode", "tg128"): 40}),
        ("| x-1b | Q4_0 | ~1500 ± 12 | 40 |", "x-1b", "Q4_0", {("prefill", "pp512"): 1500, ("decode", "tg128"): 40}),
        ("x-1b;Q4_0;pp2048=900;tg64=30", "x-1b", "Q4_0", {("prefill", "pp2048"): 900, ("decode", "tg64"): 30}),
    ],
)
def test_a_line_is_model_quant_pp_tg(line, name, quant, expected):
    (record,) = from_text(line, "notes.txt")
    assert (record.model.name, record.model.quant) == (name, quant)
    assert rates([record]) == expected


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("qwen3-8b Q4_K_M 512.3", "line 1"),
        ("a Q4_0 10 10\nqwen3-8b Q4_K_M fast 45", "line 2"),
        ("qwen3-8b Q4_K_M nan 45", "line 1"),
        ("qwen3-8b Q4_K_M - -", "line 1"),
        ("qwen3-8b Q4_K_M -5 45", "line 1"),
        ("qwen3-8b Q4_K_M 1,500.5 40.2", "line 1"),  # 1, or 1500.5
        ("qwen3-8b Q4_K_M tg128 40", "line 1"),
        ("qwen3-8b Q4_K_M pp0 4800 tg128 135", "line 1"),  # a test of no token
        ("qwen3-8b Q4_K_M pp512 4800 tg0 135", "line 1"),
        ("qwen3-8b 1500 40", "line 1"),
        ("x " * 10**6, "line 1"),
        ("1 " * 10**6, "line 1"),
        ("\t" * 10**6 + "\n" * 10**6 + "eval count: " + "1" * 10**6, "model"),
        ("# nothing\n", "no line"),
        ("", "no line"),
    ],
)
def test_other_lines_are_named(text, found):
    with pytest.raises(BadDataError, match=found):
        from_text(text, "notes.txt")


# As `ollama run --verbose` prints it (Ollama, api/types.go).
VERBOSE = """\
$ ollama run --verbose llama3.2
total duration:       1m4.883583458s
prompt eval count:    26 token(s)
prompt eval duration: 342.546ms
prompt eval rate:     75.90 tokens/s
eval count:           282 token(s)
eval duration:        1m4.5s
eval rate:            4.37 tokens/s
"""


def test_ollama_s_words_say_what_its_answer_says():
    (record,) = from_text(VERBOSE, "terminal.txt")
    assert record.model.name == "llama3.2"
    assert rates([record]) == {("prefill", "pp26"): 75.90, ("decode", "tg282 @ d26"): 4.37}
    with pytest.raises(BadDataError, match="model: found nothing"):
        from_text(VERBOSE.partition("\n")[2], "terminal.txt")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_what_powershell_redirects_is_read(tmp_path, encoding):
    table, answer = tmp_path / "bench.md", tmp_path / "answer.json"
    table.write_text(TABLE, encoding=encoding)
    answer.write_text(json.dumps(OLLAMA, indent=1), encoding=encoding)
    assert rates(read_results(table)) == rates(from_text(TABLE, "table.md"))
    assert read_results(answer)[0].model.name == "llama3.2"


# Fields and units of the servers' own documentation: Ollama docs/api.md, LM Studio REST v0, llama-server README.
OLLAMA = {
    "model": "llama3.2",
    "created_at": "2023-08-04T19:22:45.499127Z",
    "done": True,
    "total_duration": 4883583458,
    "prompt_eval_count": 26,
    "prompt_eval_duration": 342546000,
    "eval_count": 282,
    "eval_duration": 4535599000,
}
LM_STUDIO = {
    "model": "granite-3.0-2b-instruct",
    "usage": {"prompt_tokens": 24, "completion_tokens": 53, "total_tokens": 77},
    "stats": {"tokens_per_second": 51.43709529007664, "time_to_first_token": 0.111, "generation_time": 0.954},
    "model_info": {"arch": "granite", "quant": "Q4_K_M", "format": "gguf", "context_length": 4096},
}
LLAMA_SERVER = {
    "model": "smollm2-135m",
    "timings": {"prompt_n": 512, "prompt_ms": 256.0, "predicted_n": 128, "predicted_ms": 640.0},
}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (OLLAMA, {("prefill", "pp26"): 26 / 0.342546, ("decode", "tg282 @ d26"): 282 / 4.535599}),
        (LM_STUDIO, {("decode", "tg53"): 51.43709529007664}),
        (LLAMA_SERVER, {("prefill", "pp512"): 2000.0, ("decode", "tg128 @ d512"): 200.0}),
    ],
)
def test_answers_of_servers(tmp_path, answer, expected):
    file = tmp_path / "answer.json"
    file.write_text(json.dumps(answer))
    (record,) = read_results(file)
    assert record.model.name == answer["model"]
    assert rates([record]) == expected


def test_an_answer_without_a_model_is_refused(tmp_path):
    file = tmp_path / "answer.json"
    file.write_text(json.dumps(OLLAMA | {"model": None}))
    with pytest.raises(BadDataError, match="model"):
        read_results(file)
