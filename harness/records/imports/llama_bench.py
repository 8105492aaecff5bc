"""llama-bench's JSON and JSON lines; fields come and go between its builds.

Source: llama.cpp, tools/llama-bench/llama-bench.cpp.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Final

from harness.domain.quant import mixture_in
from harness.domain.record import Phase, RunRecord, Sample
from harness.domain.scenario import Scenario
from harness.errors import BadDataError
from harness.records.imports._make import count, dated, number, record, sample, text

_SAME_RUN: Final = (
    "build_commit", "cpu_info", "gpu_info", "backends", "model_filename", "model_type", "n_batch", "n_ubatch",
    "n_threads", "type_k", "type_v", "n_gpu_layers", "flash_attn", "n_depth", "repack", "load_mode",
)  # fmt: skip
"""Rows that agree in these are tests of one run."""


def recognises(document: Any) -> bool:
    """Whether a JSON document is llama-bench's: rows with a build and a time or a rate."""
    rows = document if isinstance(document, list) else [document]
    return bool(rows) and all(
        isinstance(r, dict)
        and ("n_prompt" in r or "n_gen" in r)
        and ("avg_ns" in r or "avg_ts" in r or "samples_ns" in r)
        for r in rows
    )


def from_document(document: Any, source: Path | str) -> list[RunRecord]:
    """Records of JSON rows.

    Raises:
        BadDataError: A row holds no time.
    """
    return _records(document if isinstance(document, list) else [document], source)


def _records(rows: Sequence[Mapping[str, Any]], source: Path | str) -> list[RunRecord]:
    groups: dict[tuple[str, ...], list[tuple[Mapping[str, Any], list[Sample]]]] = {}
    for index, row in enumerate(rows):
        key = tuple(str(row.get(name, "")) for name in _SAME_RUN)
        groups.setdefault(key, []).append((row, samples_of(row, f"{source}[{index}]")))
    return [_record(members, source) for members in groups.values()]


def samples_of(row: Mapping[str, Any], place: str) -> list[Sample]:
    """Samples of one row: each repetition where the row holds them, else its average.

    Raises:
        BadDataError: It holds no time.
    """
    prompt, new, depth = count(row.get("n_prompt")), count(row.get("n_gen")), count(row.get("n_depth"))
    if not prompt and not new:
        raise BadDataError(place, "n_prompt", "no tokens", "n_prompt or n_gen above 0")
    phase: Phase = "workload" if prompt and new else "prefill" if prompt else "decode"
    label = {"workload": f"pp{prompt}+tg{new}", "prefill": f"pp{prompt}"}.get(phase, f"tg{new}")
    label += f" @ d{depth}" if depth else ""
    tokens = prompt + new
    taken = row.get("samples_ns")
    seconds = [number(ns) / 1e9 for ns in taken] if isinstance(taken, list) and taken else []
    if not seconds and number(row.get("avg_ns")):
        seconds = [number(row["avg_ns"]) / 1e9]
    if not seconds and number(row.get("avg_ts")):
        seconds = [tokens / number(row["avg_ts"])]
    if not seconds or not all(seconds):
        raise BadDataError(place, "samples_ns", "no time", "samples_ns, avg_ns or avg_ts above 0")
    begun = datetime.fromisoformat(dated(row.get("test_time")))
    begun_unix_s = max(0.0, (begun if begun.tzinfo else begun.replace(tzinfo=UTC)).timestamp())
    return [sample(phase, label, tokens, s, begun_unix_s) for s in seconds]


def _record(members: Sequence[tuple[Mapping[str, Any], list[Sample]]], source: Path | str) -> RunRecord:
    row = members[0][0]
    depth = count(row.get("n_depth"))
    prompts = [count(r.get("n_prompt")) for r, _ in members]
    news = [count(r.get("n_gen")) for r, _ in members]
    threads = count(row.get("n_threads"))
    scenario = Scenario(
        context_tokens=max(1, depth + max(prompts) + max(news)),
        prompt_tokens=max(prompts),
        new_tokens=max(news),
        depth_tokens=depth,
        ubatch_tokens=count(row.get("n_ubatch"), 512),
        kv_type=text(row.get("type_k"), 10).upper() or "F16",
        flash_attention=str(row.get("flash_attn")) not in {"0", "False", "false"},
        thread_count=threads,
        api=text(row.get("backends"), 40).split(",")[0].lower(),
    )
    kind = text(row.get("model_type"))
    file = text(row.get("model_filename"), 4000)
    name = PureWindowsPath(PurePosixPath(file).name).name.removesuffix(".gguf")
    return record(
        source,
        tool="llama-bench",
        created=dated(row.get("test_time")),
        samples=[s for _, samples in members for s in samples],
        name=name or kind,
        quant=mixture_in(kind),
        size_bytes=count(row.get("model_size")),
        parameter_count=count(row.get("model_n_params")),
        architecture=kind.split(" ")[0],
        cpu=text(row.get("cpu_info")),
        device=text(row.get("gpu_info")) or text(row.get("cpu_info")),
        engine_version=str(row.get("build_number", ""))[:40],
        engine_build=text(row.get("build_commit"), 60),
        thread_count=threads,
        scenario=scenario,
    )
