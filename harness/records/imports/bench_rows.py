"""Rows of llama-bench as run records; what other tools tell is brought into the form of such rows.

Sources: llama.cpp, tools/llama-bench/llama-bench.cpp (``test::get_fields``); Ollama, docs/api.md; LM Studio,
REST API v0; llama.cpp, tools/server/README.md. Numbers are checked, names are kept short, nothing is trusted.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Final

from harness import __version__
from harness.core.errors import BadDataError
from harness.core.grouping import grouped
from harness.core.placement import Placement
from harness.core.record import (
    SCHEMA_VERSION,
    UNKNOWN_MACHINE,
    EngineIdentity,
    ModelIdentity,
    Phase,
    Record,
    Sample,
)
from harness.core.scenario import Scenario
from harness.models.quant import mixture_in
from harness.records.store import decode, encode

Row = Mapping[str, Any]
SAMPLES_MAX: Final = 100_000
ALL_LAYERS: Final = 99
"""Of ``-ngl``, what llama-bench does unasked and people write for all of them; a negative number says so too."""
UNDATED: Final = "1970-01-01T00:00:00+00:00"
"""When a result was made that does not say so."""
LEAST, MOST = 1e-15, 1e19
"""Of any amount, nanoseconds since 1970 among them: powers of what is beyond are no numbers any more."""
_SAME: Final = (
    *("build_commit", "cpu_info", "gpu_info", "backends", "model_filename", "model_type", "n_batch"),
    *("n_ubatch", "n_threads", "type_k", "type_v", "n_gpu_layers", "flash_attn", "n_depth", "repack"),
    "load_mode",
)
"""What rows of one run have in common."""


def number(value: Any) -> float:
    """An amount within ``LEAST`` and ``MOST``, read from a number or text; 0 for any other value."""
    try:
        amount = float(value)
    except (TypeError, ValueError):
        return 0.0
    return amount if LEAST <= amount <= MOST else 0.0


def count(value: Any) -> int:
    """The same as a whole number."""
    return int(min(number(value), 2**53))


def text(value: Any, most: int = 200) -> str:
    """Text of bounded length, of text or a whole number; empty for anything else."""
    return str(value)[:most].strip() if isinstance(value, str | int) else ""


def of_llama_bench(rows: Sequence[Row], source: Path | str) -> list[Record]:
    """Records of llama-bench's rows; fields come and go between its builds.

    Raises:
        BadDataError: A row holds no time, or names no model.
    """
    runs = grouped(rows, lambda row: tuple(str(row.get(name, "")) for name in _SAME))
    return [record_of("llama-bench", members, source) for members in runs.values()]


def of_answer(answer: Row, source: Path | str) -> Record | None:
    """The record of what Ollama, llama-server or LM Studio answered with its timings; None for anything else.

    Raises:
        BadDataError: It took no time, or names no model.
    """
    parts = {name: part for name, part in answer.items() if isinstance(part, dict)}
    timings = parts.get("timings", {})
    stats = parts.get("stats", {})
    prompt = timings.get("prompt_n")
    read_ns = 1e6 * number(timings.get("prompt_ms"))
    if "eval_duration" in answer:
        tool = "ollama"
        prompt = answer.get("prompt_eval_count")
        read_ns = number(answer.get("prompt_eval_duration"))
        write = {"n_gen": answer.get("eval_count"), "avg_ns": answer["eval_duration"]}
    elif "predicted_ms" in timings:
        tool = "llama-server"
        write = {"n_gen": timings.get("predicted_n"), "avg_ns": 1e6 * number(timings["predicted_ms"])}
    elif "tokens_per_second" in stats:
        tool = "lmstudio"
        new = parts.get("usage", {}).get("completion_tokens")
        write = {"n_gen": new, "avg_ts": stats["tokens_per_second"]}
    else:
        return None
    named = {"model_filename": answer.get("model"), "test_time": answer.get("created_at")}
    rows = []
    if number(prompt) and read_ns:
        rows.append(named | {"n_prompt": prompt, "avg_ns": read_ns})
        write["n_depth"] = prompt
    if not rows or all(map(number, write.values())):
        rows.append(named | write)
    return record_of(tool, rows, source, quant=text(parts.get("model_info", {}).get("quant")))


def samples_of(row: Row, place: Path | str) -> list[Sample]:
    """Samples of one row: each repetition where the row holds them, else its average.

    Raises:
        BadDataError: It holds no time.
    """
    prompt, new, depth = (count(row.get(name)) for name in ("n_prompt", "n_gen", "n_depth"))
    tokens = prompt + new
    if not tokens:
        raise BadDataError(place, "n_prompt", "no tokens", "n_prompt or n_gen above 0")
    taken = row.get("samples_ns")
    if not isinstance(taken, list) or not taken:
        taken = [row.get("avg_ns")]
    seconds = [number(ns) / 1e9 for ns in taken]
    if seconds == [0.0] and "samples_ns" not in row and number(row.get("avg_ts")):
        seconds = [tokens / number(row["avg_ts"])]
    if not all(seconds):
        raise BadDataError(place, "samples_ns", "no time", "samples_ns, avg_ns or avg_ts above 0")
    phase: Phase = "workload"
    label = f"pp{prompt}+tg{new}"
    if not new:
        phase = "prefill"
        label = f"pp{prompt}"
    elif not prompt:
        phase = "decode"
        label = f"tg{new}"
    if depth:
        label += f" @ d{depth}"
    return [
        Sample(phase=phase, label=label, token_count=tokens, duration_s=s, started_unix_s=0.0)
        for s in seconds
    ]


def record_of(
    tool: str, rows: Sequence[Row], source: Path | str, *, name: str = "", quant: str = ""
) -> Record:
    """A record of all rows; its identifier is made from its content, so that reading twice gives the same.

    The first of the ``rows`` says what it is of, where ``name`` and ``quant`` do not.

    Raises:
        BadDataError: A row holds no time; there are too many samples; no model is named; or an amount is none
            that a record may have.
    """
    row = rows[0]
    kind = text(row.get("model_type"))
    file = PureWindowsPath(PurePosixPath(text(row.get("model_filename"), 4000)).name).name
    name = name or file.removesuffix(".gguf") or kind
    if not name:
        raise BadDataError(source, "model", "nothing", "the name of the model")
    samples = [sample for one in rows for sample in samples_of(one, source)]
    if len(samples) > SAMPLES_MAX:
        raise BadDataError(source, "", f"{len(samples)} samples", f"at most {SAMPLES_MAX}")
    created = UNDATED
    with suppress(ValueError):
        created = datetime.fromisoformat(text(row.get("test_time"))).isoformat()
    depth, prompt, new = (
        max(count(one.get(key)) for one in rows) for key in ("n_depth", "n_prompt", "n_gen")
    )
    layers = text(row.get("n_gpu_layers"))
    placement = Placement()
    if layers.isdecimal() and int(layers) < ALL_LAYERS:
        placement = Placement(gpu_layers=int(layers))
    threads = count(row.get("n_threads"))
    chip = text(row.get("cpu_info"))
    digest = hashlib.sha256(repr((tool, name, quant, created, samples)).encode()).hexdigest()[:8]
    made = Record(
        schema_version=SCHEMA_VERSION,
        run_id=f"{re.sub(r'[^0-9T]', '', created)[:15]}-{tool}-{digest}",
        created=created,
        harness_version=__version__,
        command=(f"imported from {tool}",),
        workload="generate",
        machine=UNKNOWN_MACHINE.replace(
            cpu_model=chip, device=text(row.get("gpu_info")) or chip or UNKNOWN_MACHINE.device
        ),
        scenario=Scenario(
            context_tokens=depth + prompt + new,
            prompt_tokens=prompt,
            new_tokens=new,
            depth_tokens=count(row.get("n_depth")),
            ubatch_tokens=count(row.get("n_ubatch")) or 512,
            kv_type=text(row.get("type_k"), 10).upper() or "F16",
            flash_attention=str(row.get("flash_attn")) not in {"0", "False", "false"},
            thread_count=threads,
            api=text(row.get("backends"), 40).split(",")[0].lower(),
            placement=placement,
        ),
        outcome="ok",
        model=ModelIdentity(
            name=name,
            quant=quant or mixture_in(kind),
            size_bytes=count(row.get("model_size")),
            sha256="",
            architecture=kind.partition(" ")[0],
            parameter_count=count(row.get("model_n_params")),
        ),
        engine=EngineIdentity(
            name=tool,
            version=text(row.get("build_number")),
            build=text(row.get("build_commit")),
            thread_count=threads,
        ),
        samples=tuple(samples),
        extra={"imported_from": tool},
    )
    return decode(encode(made), str(source))  # what cannot be read back is not kept
