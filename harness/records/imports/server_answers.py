"""Answers of servers that tell their own timings, kept as JSON: Ollama, LM Studio and llama-server.

Sources: Ollama docs/api.md (times in nanoseconds); LM Studio REST API v0 (``stats``, ``usage``, ``model_info``);
llama.cpp tools/server/README.md (``timings``, in milliseconds).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.domain.record import RunRecord
from harness.errors import BadDataError
from harness.records.imports._make import count, dated, number, part, record, sample, text


def recognises(document: Any) -> bool:
    """Whether every part of a JSON document is such an answer."""
    parts = document if isinstance(document, list) else [document]
    return bool(parts) and all(isinstance(p, dict) and _times(p) is not None for p in parts)


def from_document(document: Any, source: Path | str) -> list[RunRecord]:
    """One record for each answer.

    Raises:
        BadDataError: An answer took no time, or names no model.
    """
    return [_record(p, source) for p in (document if isinstance(document, list) else [document])]


def _times(answer: Mapping[str, Any]) -> tuple[str, int, float, int, float] | None:
    """Software, tokens of the prompt and their seconds, new tokens and theirs; 0 s for what it does not tell."""
    timings, stats = part(answer, "timings"), part(answer, "stats")
    if "eval_duration" in answer:
        prompt_s, new_s = (number(answer.get(name)) / 1e9 for name in ("prompt_eval_duration", "eval_duration"))
        return "ollama", count(answer.get("prompt_eval_count")), prompt_s, count(answer.get("eval_count")), new_s
    if "tokens_per_second" in stats:
        new, speed = count(part(answer, "usage").get("completion_tokens")), number(stats["tokens_per_second"])
        return "lmstudio", 0, 0.0, new, new / speed if speed else 0.0
    if "predicted_ms" in timings:
        prompt_s, new_s = (number(timings.get(name)) / 1e3 for name in ("prompt_ms", "predicted_ms"))
        return "llama-server", count(timings.get("prompt_n")), prompt_s, count(timings.get("predicted_n")), new_s
    return None


def _record(answer: Mapping[str, Any], source: Path | str) -> RunRecord:
    times = _times(answer)
    assert times is not None
    software, prompt, prompt_s, new, new_s = times
    name = text(answer.get("model"))
    if not name:
        raise BadDataError(source, "model", "nothing", "the name of the model that answered")
    samples = [sample("prefill", f"pp{prompt}", prompt, prompt_s)] if prompt and prompt_s else []
    if new and new_s:
        samples.append(sample("decode", f"tg{new} @ d{prompt}" if prompt else f"tg{new}", new, new_s))
    return record(
        source,
        tool=software,
        created=dated(answer.get("created_at")),
        samples=samples,
        name=name,
        quant=text(part(answer, "model_info").get("quant")),
    )
