"""llama-bench's JSON and JSON lines; fields come and go between its builds."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from harness.domain.quant import mixture_in
from harness.domain.record import Phase, RunRecord, Sample
from harness.domain.scenario import Scenario
from harness.errors import BadDataError
from harness.records.imports._make import TOOLS, count, dated, number, record, sample, text


def from_document(document: Any, source: Path | str) -> list[RunRecord]:
    """Records of JSON rows.

    Raises:
        BadDataError: A row holds no time.
    """
    runs: dict[tuple[str, ...], list[tuple[Mapping[str, Any], list[Sample]]]] = {}
    for index, row in enumerate(document if isinstance(document, list) else [document]):
        key = tuple(str(row.get(name, "")) for name in TOOLS["llama-bench"]["same"])
        runs.setdefault(key, []).append((row, samples_of(row, f"{source}[{index}]")))
    return [_record(members, source) for members in runs.values()]


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
    scenario = Scenario(
        context_tokens=max(1, depth + max(prompts) + max(news)),
        prompt_tokens=max(prompts),
        new_tokens=max(news),
        depth_tokens=depth,
        ubatch_tokens=count(row.get("n_ubatch"), 512),
        kv_type=text(row.get("type_k"), 10).upper() or "F16",
        flash_attention=str(row.get("flash_attn")) not in {"0", "False", "false"},
        thread_count=count(row.get("n_threads")),
        api=text(row.get("backends"), 40).split(",")[0].lower(),
    )
    kind, file = text(row.get("model_type")), text(row.get("model_filename"), 4000)
    name = PureWindowsPath(PurePosixPath(file).name).name.removesuffix(".gguf")
    samples = [each for _, taken in members for each in taken]
    return record(
        source,
        "llama-bench",
        samples,
        row,
        scenario=scenario,
        name=name or kind,
        quant=mixture_in(kind),
        architecture=kind.partition(" ")[0],
    )
