"""Results as people paste them: llama-bench's table or CSV, what Ollama prints, a line ``model quant pp tg``.

Sources: llama.cpp, tools/llama-bench/llama-bench.cpp (``markdown_printer``, ``csv_printer``); Ollama,
api/types.go (``Metrics.Summary``; durations as Go writes them).
"""

import csv
import re
from pathlib import Path
from typing import Any, Final

from harness.core.errors import BadDataError
from harness.core.record import Record
from harness.models.quant import mixture_in, split
from harness.records.imports.bench_rows import number, of_llama_bench, record_of

PROMPT_TOKENS: Final = 512
NEW_TOKENS: Final = 128
"""Tests that the two numbers of a pasted line are taken for where it does not say: llama-bench's own."""

_LINE_MAX: Final = 400
"""Characters of a line with one model and its speeds."""
_FORMS: Final = (
    "llama-bench's table or CSV, or lines such as: qwen3-8b Q4_K_M 512.3 45.1 (pp512 and tg128, - for none)"
)
_NUMBER: Final = (
    r"~?(\d+(?:\.\d+)?(?:e[+-]?\d+)?|-)(?:\s*(?:±|\+-)\s*[\d.]+)?(?:\s*t(?:ok(?:en)?s?)?/s(?:ec)?)?"
)
_LINE: Final = re.compile(
    rf"(?i)[\s|]*(.+?)[\s,;|:]+(?:pp([1-9]\d*)[\s:=]+)?{_NUMBER}[\s,;|/]+(?:tg([1-9]\d*)[\s:=]+)?{_NUMBER}[\s|]*"
)
_TEST: Final = re.compile(r"(?:pp(?P<n_prompt>\d+))?\+?(?:tg(?P<n_gen>\d+))?(?: ?@ ?d(?P<n_depth>\d+))?")
"""Prompt, new tokens and depth of ``pp512``, ``tg128 @ d2048`` or ``pp512+tg128``."""
_COLUMNS: Final = {
    "model": "model_type",
    "backend": "backends",
    "ngl": "n_gpu_layers",
    "threads": "n_threads",
    "fa": "flash_attn",
}
"""Columns of llama-bench's tables that have another name in its JSON."""
_AMOUNTS: Final = {"MiB": 2.0**20, "GiB": 2.0**30, "M": 1e6, "B": 1e9}
_OLLAMA: Final = re.compile(r"(?m)^[ \t]*((?:prompt )?eval (?:count|rate)):[ \t]+(\S{1,40})")


def from_text(text: str, source: Path | str) -> list[Record]:
    """Records of pasted text; lines that begin with ``#`` are remarks.

    Raises:
        BadDataError: It has none of the forms; names the line.
    """
    lines = text.splitlines()
    if lines and "model_type" in lines[0] and "avg_ts" in lines[0]:
        return of_llama_bench(list(csv.DictReader(lines)), source)
    if rows := _table(lines):
        return of_llama_bench(rows, source)
    if told := dict(_OLLAMA.findall(text)):
        command = re.search(r"ollama run (?:--\S+ +)*([^\s-]\S*)", text)
        rows = [{"n_gen": told.get("eval count"), "avg_ts": told.get("eval rate")}]
        if prompt := told.get("prompt eval count"):
            rows[0]["n_depth"] = prompt
            rows.insert(0, {"n_prompt": prompt, "avg_ts": told.get("prompt eval rate")})
        return [record_of("ollama", rows, source, name=command[1] if command else "")]
    records = []
    for index, line in enumerate(lines, 1):
        if line.strip() and not line.lstrip().startswith("#"):
            records.append(_line(line.strip(), f"{source}, line {index}"))
    if not records:
        raise BadDataError(source, "", "no line", _FORMS)
    return records


def _table(lines: list[str]) -> list[dict[str, Any]]:
    """Rows of every llama-bench table in the text, by the names of its JSON.

    Prose, and tables that other programs print, are passed over without a word.
    """
    columns: list[str] = []
    rows = []
    for line in lines:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.lstrip().startswith("|"):
            columns = []
        elif {"test", "t/s"} <= set(cells):
            columns = [_COLUMNS.get(cell, cell) for cell in cells]
        elif columns:
            row: dict[str, Any] = dict(zip(columns, cells, strict=False))
            test = _TEST.fullmatch(row.get("test", ""))
            if test and (test[1] or test[2]):
                row |= test.groupdict()
                row["model_size"] = _amount(row.get("size", ""))
                row["model_n_params"] = _amount(row.get("params", ""))
                row["avg_ts"] = re.split(r"[±+ ]", row.get("t/s", ""))[0]
                rows.append(row)
    return rows


def _amount(text: str) -> float:
    value, _, unit = text.partition(" ")
    return number(value) * _AMOUNTS.get(unit, 0)


def _line(line: str, place: str) -> Record:
    match = None
    if len(line) < _LINE_MAX:
        match = _LINE.fullmatch(line)
    if match:
        written = re.sub(r"[\s,;|]+", " ", match[1]).removesuffix(".gguf")
        name, quant = split(written)
        rows = []
        if match[3] != "-":
            rows.append({"n_prompt": match[2] or PROMPT_TOKENS, "avg_ts": match[3]})
        if match[5] != "-":
            rows.append({"n_gen": match[4] or NEW_TOKENS, "avg_ts": match[5]})
        if rows and quant and written.endswith(quant):
            if " - " in quant:
                quant = mixture_in(quant)
            return record_of("pasted", rows, place, name=name, quant=quant)
    raise BadDataError(place, "", repr(line[:80]), _FORMS)
