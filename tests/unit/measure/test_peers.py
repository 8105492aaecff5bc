"""Answers of other tools, read from output as they print it."""

import json

from bench.peers import read_fit_params, read_llmfit, read_roofline


def test_fit_params_adds_model_context_and_compute() -> None:
    text = "0.00.005.156 I llama_fit_params: printing estimated memory in MiB ...\nHost 92 90 98 \n"
    assert read_fit_params(text).memory_bytes == (92 + 90 + 98) * 2**20
    assert read_fit_params("nothing").memory_bytes is None


def test_llmfit_answers_for_the_cpu() -> None:
    plan = {
        "quantization": "Q4_K_M",
        "current": {"estimated_tps": 179.5},
        "run_paths": [
            {"path": "gpu", "minimum": {"ram_gb": 8.0}},
            {"path": "cpu_only", "minimum": {"ram_gb": 0.5}},
        ],
    }
    answer = read_llmfit(json.dumps(plan))
    assert (answer.memory_bytes, answer.decode_tokens_per_s) == (2**29, 179.5)


def test_roofline_gives_its_ceiling() -> None:
    document = {"models": [{"peak_bw_GBs": 32.0, "streamed_bytes": 1000, "ceiling_tok_s": 331.3}]}
    assert read_roofline(json.dumps(document)).decode_tokens_per_s == 331.3
