"""llama-bench's ``-o jsonl``: a line a test.

Source: llama.cpp, tools/llama-bench/llama-bench.cpp (``test::get_fields``, ``test::get_field_type``).
"""

import json
import re
from collections.abc import Iterator, Sequence
from statistics import fmean, stdev
from typing import Any, Final

from harness.domain.record import RunRecord, Sample
from harness.printable import clean
from harness.report.document import Report

FIELDS: Final[dict[str, str]] = {
    "build_commit": "TEXT", "build_number": "INTEGER", "cpu_info": "TEXT", "gpu_info": "TEXT", "backends": "TEXT",
    "model_filename": "TEXT", "model_type": "TEXT", "model_size": "INTEGER", "model_n_params": "INTEGER",
    "n_batch": "INTEGER", "n_ubatch": "INTEGER", "n_threads": "INTEGER", "cpu_mask": "TEXT", "cpu_strict": "INTEGER",
    "poll": "INTEGER", "type_k": "TEXT", "type_v": "TEXT", "n_gpu_layers": "INTEGER", "n_cpu_moe": "INTEGER",
    "split_mode": "TEXT", "main_gpu": "INTEGER", "no_kv_offload": "INTEGER", "flash_attn": "INTEGER",
    "devices": "TEXT", "tensor_split": "TEXT", "tensor_buft_overrides": "TEXT", "load_mode": "TEXT",
    "lazy_mode": "TEXT", "embeddings": "INTEGER", "no_op_offload": "INTEGER", "no_host": "INTEGER",
    "repack": "INTEGER", "fit_target": "INTEGER", "fit_min_ctx": "INTEGER", "n_prompt": "INTEGER", "n_gen": "INTEGER",
    "n_depth": "INTEGER", "test_time": "TEXT", "avg_ns": "INTEGER", "stddev_ns": "INTEGER", "avg_ts": "REAL",
    "stddev_ts": "REAL",
}  # fmt: skip
"""Columns of llama-bench's table, in its order, with their SQLite types."""

BOOLEANS: Final = ("cpu_strict", "no_kv_offload", "embeddings", "no_host", "repack")


def render(records: Sequence[RunRecord], report: Report) -> str:
    """JSON lines."""
    del report
    lines = [json.dumps({k: bool(v) if k in BOOLEANS else v for k, v in row.items()}) for row in rows(records)]
    return "".join(line + "\n" for line in lines)


def rows(records: Sequence[RunRecord]) -> Iterator[dict[str, Any]]:
    """A row for each test (``pp``, ``tg``) of each run of a language model, with ``samples_ns`` and ``samples_ts``."""
    for record in records:
        if record.model is None or record.engine is None:
            continue
        groups: dict[tuple[str, str], list[Sample]] = {}
        for phase in ("prefill", "decode"):
            for sample in record.believed(phase):
                if sample.duration_s > 0 and sample.token_count:
                    groups.setdefault((phase, sample.label), []).append(sample)
        for (phase, label), samples in groups.items():
            yield _row(record, phase, label, samples)


def _row(record: RunRecord, phase: str, label: str, samples: Sequence[Sample]) -> dict[str, Any]:
    """Fields in their order; 0 is what llama-bench says of an option that is off."""
    model, engine, scenario = record.model, record.engine, record.scenario
    assert model is not None
    assert engine is not None
    ns = [round(s.duration_s * 1e9) for s in samples]
    ts = [s.token_count / s.duration_s for s in samples]
    depth = re.search(r"@ d(\d+)", label)
    count = samples[0].token_count
    kv = scenario.kv_type.lower()
    build = re.search(r"\b[0-9a-f]{7,40}\b", engine.build)
    return dict.fromkeys(FIELDS, 0) | {
        "build_commit": build[0] if build else engine.version,
        "cpu_info": record.machine.cpu_model,
        "gpu_info": "",
        "backends": scenario.api.upper() or "CPU",
        "model_filename": f"{clean(model.name)}.gguf",
        "model_type": clean(f"{model.architecture} {_size(model.parameter_count)} {model.quant}"),
        "model_size": model.size_bytes,
        "model_n_params": model.parameter_count,
        "n_batch": int(engine.options.get("n_batch", 2048)),
        "n_ubatch": scenario.ubatch_tokens,
        "n_threads": engine.thread_count,
        "cpu_mask": "0x0",
        "poll": 50,
        "type_k": kv,
        "type_v": kv,
        "n_gpu_layers": int(engine.options.get("n_gpu_layers", 0)),
        "split_mode": "layer",
        "flash_attn": int(scenario.flash_attention),
        "devices": "auto",
        "tensor_split": "0.00",
        "tensor_buft_overrides": "none",
        "load_mode": "mmap" if scenario.mmap else "none",
        "lazy_mode": "auto",
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
