"""llama-bench's ``-o jsonl``: a line a test.

Source: llama.cpp, tools/llama-bench/llama-bench.cpp (``test::get_fields``, ``test::get_field_type``).
"""

import json
import re
from collections.abc import Iterator, Sequence
from statistics import fmean, stdev
from typing import Any, Final

from harness.domain.base import shipped_table
from harness.domain.record import RunRecord, Sample
from harness.printable import clean
from harness.records.derive import tests_of
from harness.report.document import Report

FIELDS: Final[dict[str, tuple[str, str | int]]] = shipped_table("schema/llama_bench.toml", "harness.report")
"""Columns of llama-bench's table, in its order: SQLite type, and what stands there unless a run knows better."""

BOOLEANS: Final = ("cpu_strict", "no_kv_offload", "embeddings", "no_host", "repack")


def render(records: Sequence[RunRecord], _report: Report) -> str:
    """JSON lines."""
    lines = [json.dumps({k: bool(v) if k in BOOLEANS else v for k, v in row.items()}) for row in rows(records)]
    return "".join(line + "\n" for line in lines)


def rows(records: Sequence[RunRecord]) -> Iterator[dict[str, Any]]:
    """A row for each test (``pp``, ``tg``) of each run of a language model, with ``samples_ns`` and ``samples_ts``."""
    for record in records:
        if record.model is None or record.engine is None:
            continue
        tests = tests_of(record)
        for phase in ("prefill", "decode"):
            for (found, label), samples in tests.items():
                kept = [s for s in samples if not s.validity.doubts and s.duration_s > 0 and s.token_count]
                if found == phase and kept:
                    yield _row(record, phase, label, kept)


def _row(record: RunRecord, phase: str, label: str, samples: Sequence[Sample]) -> dict[str, Any]:
    """Fields in their order."""
    model, engine, scenario = record.model, record.engine, record.scenario
    assert model is not None
    assert engine is not None
    ns = [round(s.duration_s * 1e9) for s in samples]
    ts = [s.token_count / s.duration_s for s in samples]
    depth = re.search(r"@ d(\d+)", label)
    count = samples[0].token_count
    kv = scenario.kv_type.lower()
    build = re.search(r"\b[0-9a-f]{7,40}\b", engine.build)
    return {name: usual for name, (_, usual) in FIELDS.items()} | {
        "build_commit": build[0] if build else engine.version,
        "cpu_info": record.machine.cpu_model,
        "backends": scenario.api.upper() or "CPU",
        "model_filename": f"{clean(model.name)}.gguf",
        "model_type": clean(f"{model.architecture} {_size(model.parameter_count)} {model.quant}"),
        "model_size": model.size_bytes,
        "model_n_params": model.parameter_count,
        "n_batch": int(engine.options.get("n_batch", 2048)),
        "n_ubatch": scenario.ubatch_tokens,
        "n_threads": engine.thread_count,
        "type_k": kv,
        "type_v": kv,
        "n_gpu_layers": int(engine.options.get("n_gpu_layers", 0)),
        "flash_attn": int(scenario.flash_attention),
        "load_mode": "mmap" if scenario.mmap else "none",
        "repack": int(scenario.repack),
        "n_prompt": count if phase == "prefill" else 0,
        "n_gen": count if phase == "decode" else 0,
        "n_depth": int(depth[1]) if depth else 0,
        "test_time": record.created[:19].replace("+00:00", "") + "Z",
        "avg_ns": round(fmean(ns)),
        "stddev_ns": round(stdev(ns)) if len(ns) > 1 else 0,
        "avg_ts": fmean(ts),
        "stddev_ts": stdev(ts) if len(ts) > 1 else 0.0,
        "samples_ns": ns,
        "samples_ts": ts,
    }


def _size(count: int) -> str:
    return f"{count / 1e9:.1f}B" if count >= 1e9 else f"{count / 1e6:.0f}M"
