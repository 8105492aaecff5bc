"""Weights and cache of every kind of architecture, against what llama.cpp's own log says of the same tiny models.

The numbers are copied from the engine's lines "model buffer size", "KV buffer size" and "RS buffer size" (the release
in llama-cpp-python 0.3.36); `python -m bench.memory_conformance` makes them anew and keeps them in reports/memory.
"""

import json
from pathlib import Path

import pytest

from bench.memory_conformance import KINDS, judged
from harness.core.scenario import Scenario
from harness.core.units import MIB
from harness.measure.child import run_child
from harness.memory.kv_cache import kv_cache_bytes, kv_read_bytes
from harness.memory.peak import weight_parts
from harness.models.names import load_model
from harness.models.weights import weights_of

# kind: weights in Q4_0; cache of 4096 tokens in F16, of 16384 in Q4_0, and of 4096 tokens in Q8_0 for 4 sequences (MiB)
LOGGED = {
    "full: llama": (6.46, 16.0, 18.0, 8.5),
    "full: llama, every head cached": (7.03, 32.0, 36.0, 17.0),
    "full: qwen2": (6.48, 16.0, 18.0, 8.5),
    "full: qwen3": (8.15, 32.0, 36.0, 17.0),
    "full: phi3": (6.46, 16.0, 18.0, 8.5),
    "full: starcoder2": (5.4, 16.0, 18.0, 8.5),
    "sliding: gemma2": (8.46, 15.0, 14.34, 12.76),
    "sliding: gemma3": (8.47, 9.0, 5.91, 12.74),
    "sliding: olmo2": (9.02, 9.0, 5.91, 12.74),
    "sliding: cohere2": (8.43, 9.0, 5.91, 12.74),
    "sliding: gemma4": (8.89, 12.0, 10.12, 12.75),
    "sliding: gemma4, shared keys": (15.81, 5.0, 4.78, 4.24),
    "sliding and experts: gemma4": (20.05, 12.0, 10.12, 12.75),
    "sliding and experts: gpt-oss": (10.17, 9.5, 9.42, 7.44),
    "latent: minicpm3": (6.93, 40.0, 45.0, 21.25),
    "latent and experts: deepseek2": (10.14, 9.0, 10.12, 4.78),
    "latent and experts: mistral4": (11.21, 9.0, 10.12, 4.78),
    "recurrent: mamba": (4.78, 0.3, 0.3, 1.19),
    "recurrent: mamba2": (4.62, 2.06, 2.06, 8.23),
    "hybrid: granitehybrid": (14.69, 11.09, 12.09, 16.6),
    "hybrid: falcon-h1": (10.25, 18.06, 20.06, 16.73),
    "hybrid: qwen35": (9.38, 9.57, 10.57, 10.53),
    "hybrid: lfm2": (11.71, 12.02, 13.52, 6.46),
    "hybrid: nemotron_h": (7.3, 6.06, 6.56, 10.35),
    "hybrid and experts: jamba": (38.87, 8.45, 9.45, 6.03),
    "hybrid and experts: qwen3next": (15.42, 9.57, 10.57, 10.53),
    "hybrid and experts: qwen35moe": (15.42, 9.57, 10.57, 10.53),
    "hybrid and experts: lfm2moe": (17.24, 12.02, 13.52, 6.46),
    "hybrid and experts: nemotron_h_moe": (9.58, 6.06, 6.56, 10.35),
    "experts: mixtral (llama)": (10.4, 16.0, 18.0, 8.5),
    "experts: qwen3moe": (10.4, 16.0, 18.0, 8.5),
    "experts: olmoe": (11.48, 32.0, 36.0, 17.0),
    "experts: granitemoe": (9.84, 16.0, 18.0, 8.5),
    "experts: minimax-m2": (10.41, 16.0, 18.0, 8.5),
    "experts: glm4moe": (10.19, 16.0, 18.0, 8.5),
}


def test_every_kind_has_its_row() -> None:
    assert set(LOGGED) == set(KINDS)


@pytest.mark.parametrize("kind", LOGGED)
def test_cache_agrees_with_the_log(kind: str) -> None:
    _, *expected = LOGGED[kind]
    asked = [("F16", 4096, 1), ("Q4_0", 16384, 1), ("Q8_0", 4096, 4)]
    for (kv_type, context, sequences), mib in zip(asked, expected, strict=True):
        asked = Scenario(context_tokens=context, kv_type=kv_type, batch_count=sequences)
        predicted = kv_cache_bytes(KINDS[kind], asked) / MIB
        assert predicted == pytest.approx(mib, abs=0.0101), (kv_type, context, sequences)  # two lines, rounded each


@pytest.mark.parametrize("kind", LOGGED)
def test_weights_agree_with_the_log(kind: str) -> None:
    weights = weights_of(KINDS[kind], "Q4_0")
    mapped = sum(p.file_bytes for p in weight_parts(weights, Scenario(repack=False), "cpu", None))
    assert mapped / MIB == pytest.approx(LOGGED[kind][0], rel=0.01)


def test_a_state_is_read_for_every_token() -> None:
    # "RS buffer size = 23.75 MiB" of mamba-2.8b: 64 layers x 4 x (3 x 5120 + 5120 x 16) bytes = 24.9 MB
    shape = load_model("mamba-2.8b").shape
    assert kv_read_bytes(shape, 0) == 64 * 4 * (3 * 5120 + 5120 * 16)


def test_layers_that_share_rows_read_them_again() -> None:
    shape = KINDS["sliding: gemma4, shared keys"]
    # 4 sliding layers see 2 x 2 heads x 64 x 2 bytes of 512 tokens, 2 full ones 2 x 2 x 128 x 2 bytes of all
    assert kv_read_bytes(shape, 4096) == 4 * 512 * 512 + 2 * 4096 * 1024


def test_the_record_is_what_it_says() -> None:
    record = json.loads((Path(__file__).parents[3] / "reports" / "memory" / "conformance.json").read_text())
    rows = [row for row in record["rows"] if row["part"] in {"weights", "repacked weights", "cache"}]
    assert {row["kind"] for row in rows} == set(KINDS)
    assert max(judged(row)["error_ratio"] for row in rows) == record["worst"]["error_ratio"] <= 0.01


def test_an_error_beyond_the_rounding_is_seen() -> None:
    row = {"part": "cache", "logged_mib": 16.0, "log_lines": 1, "predicted_bytes": 16 * MIB * 102 // 100}
    assert judged(row)["error_ratio"] == pytest.approx(0.02, abs=0.001)


@pytest.mark.parametrize("kind", ["full: llama", "sliding: gemma3", "latent and experts: deepseek2"])
def test_our_sessions_ask_the_engine_for_that_layout(kind: str) -> None:
    """A session that kept whole windows, for one, would hold three times the cache that is predicted."""
    pytest.importorskip("llama_cpp")
    ended = run_child("bench.memory_conformance:measure_in_child", {"kind": kind, "quant": "Q4_0"})
    assert ended.outcome == "ok", ended.detail
    rows = [row for row in ended.told("rows")[0] if row["part"] == "cache"]
    logged = {(r["kv_type"], r["context_tokens"], r["sequence_count"]): r["logged_mib"] for r in rows}
    assert (logged["F16", 4096, 1], logged["Q4_0", 16384, 1], logged["Q8_0", 4096, 4]) == LOGGED[kind][1:]
