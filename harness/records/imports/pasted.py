"""Results as people paste them: llama-bench's table or CSV, and one line a model: ``model quant pp tg``.

Source of the table's columns: llama.cpp, tools/llama-bench/llama-bench.cpp (``markdown_printer``, ``csv_printer``).
"""

import csv
import re
from pathlib import Path
from typing import Any, Final

from harness.domain.record import RunRecord
from harness.domain.scenario import Scenario
from harness.errors import BadDataError
from harness.records.imports import llama_bench
from harness.records.imports._make import number, record, sample

PROMPT_TOKENS: Final = 512
NEW_TOKENS: Final = 128
"""Tests that the two numbers of a pasted line are taken for: pp512 and tg128, llama-bench's own."""

_FORMS: Final = "llama-bench's table or CSV, or lines such as: qwen3-8b Q4_K_M 512.3 45.1 (pp512 and tg128, - for none)"
_AMOUNTS: Final = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "M": 1e6, "B": 1e9, "T": 1e12}


def from_text(text: str, source: Path | str) -> list[RunRecord]:
    """Records of pasted text; lines that begin with ``#`` are remarks.

    Raises:
        BadDataError: It has none of the forms; names the line.
    """
    lines = text.splitlines()
    if lines and "model_type" in lines[0] and "avg_ts" in lines[0]:
        return llama_bench.from_document(list(csv.DictReader(lines)), source)
    if rows := _table(lines):
        return llama_bench.from_document(rows, source)
    kept = [(i, line.strip()) for i, line in enumerate(lines, 1) if line.strip() and not line.lstrip().startswith("#")]
    if not kept:
        raise BadDataError(source, "", "no line", _FORMS)
    return [_line(line, source, i) for i, line in kept]


def _table(lines: list[str]) -> list[dict[str, Any]]:
    """Rows of every llama-bench table in the text, by the names of its JSON; other tables and prose are passed over."""
    columns: list[str] = []
    rows = []
    for line in lines:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.lstrip().startswith("|"):
            columns = []
        elif {"test", "t/s"} <= set(cells):
            columns = cells
        elif columns and not set(line) <= set("|:- "):
            row = dict(zip(columns, cells, strict=False))
            if (tokens := _tokens(row["test"])) is not None:
                rows.append(_as_json(row) | tokens)
    return rows


def _as_json(row: dict[str, str]) -> dict[str, Any]:
    return {
        "model_type": row.get("model", ""),
        "model_size": _amount(row.get("size", "")),
        "model_n_params": _amount(row.get("params", "")),
        "backends": row.get("backend", ""),
        "n_gpu_layers": row.get("ngl", ""),
        "n_threads": row.get("threads", ""),
        "n_ubatch": row.get("n_ubatch", 512),
        "type_k": row.get("type_k", ""),
        "flash_attn": row.get("fa", ""),
        "avg_ts": re.split(r"[±+ ]", row["t/s"])[0],
    }


def _tokens(test: str) -> dict[str, int] | None:
    """Prompt, new tokens and depth of ``pp512``, ``tg128 @ d2048`` or ``pp512+tg128``."""
    found = re.fullmatch(r"(?:pp(\d+))?\+?(?:tg(\d+))?(?: ?@ ?d(\d+))?", test)
    if not found or not (found[1] or found[2]):
        return None
    names = ("n_prompt", "n_gen", "n_depth")
    return {name: int(text or 0) for name, text in zip(names, found.groups(), strict=True)}


def _amount(text: str) -> float:
    value, _, unit = text.partition(" ")
    return number(value) * _AMOUNTS.get(unit, 0)


def _line(line: str, source: Path | str, index: int) -> RunRecord:
    words = line.replace(",", " ").split()
    speeds = [0.0 if word == "-" else number(word, -1.0) for word in words[-2:]]
    if len(words) < 4 or min(speeds) < 0 or not any(speeds):
        raise BadDataError(source, f"line {index}", repr(line[:80]), _FORMS)
    tests = (("prefill", "pp", PROMPT_TOKENS), ("decode", "tg", NEW_TOKENS))
    return record(
        f"{source}, line {index}",
        tool="pasted",
        samples=[sample(p, f"{t}{n}", n, n / v) for (p, t, n), v in zip(tests, speeds, strict=True) if v],  # type: ignore[arg-type]
        name=" ".join(words[:-3]),
        quant=words[-3],
        scenario=Scenario(prompt_tokens=PROMPT_TOKENS, new_tokens=NEW_TOKENS),
    )
