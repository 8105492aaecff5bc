"""Results as people paste them: llama-bench's table or CSV, what Ollama prints, a line ``model quant pp tg``.

Sources: llama.cpp, tools/llama-bench/llama-bench.cpp (``markdown_printer``, ``csv_printer``); Ollama,
api/types.go (``Metrics.Summary``; durations as Go writes them).
"""

import csv
import re
from pathlib import Path
from typing import Any, Final

from harness.domain.quant import mixture_in, split
from harness.domain.record import RunRecord
from harness.domain.scenario import Scenario
from harness.errors import BadDataError
from harness.records.imports.tools import TOOLS, from_document, number, of_llama_bench, record, sample

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
_OLLAMA: Final = re.compile(r"(?m)^[ \t]*(prompt eval|eval) (count|duration):[ \t]+(\S{1,40})")
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|µs|us|ns)")


def from_text(text: str, source: Path | str) -> list[RunRecord]:
    """Records of pasted text; lines that begin with ``#`` are remarks.

    Raises:
        BadDataError: It has none of the forms; names the line.
    """
    lines = text.splitlines()
    if lines and "model_type" in lines[0] and "avg_ts" in lines[0]:
        return of_llama_bench(list(csv.DictReader(lines)), source)
    if rows := _table(lines):
        return of_llama_bench(rows, source)
    if words := _OLLAMA.findall(text):
        command = re.search(r"ollama run (?:--\S+ +)*([^\s-]\S*)", text)
        answer: dict[str, Any] = {"eval_duration": 0, "model": command[1] if command else ""}
        for what, kind, value in words:
            ns = sum(number(n) * TOOLS["ollama"]["units_ns"][unit] for n, unit in _DURATION.findall(value))
            answer[f"{what.replace(' ', '_')}_{kind}"] = ns if kind == "duration" else value
        return from_document(answer, "ollama", source)
    kept = [
        (i, line.strip())
        for i, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not kept:
        raise BadDataError(source, "", "no line", _FORMS)
    return [_line(line, source, i) for i, line in kept]


def _table(lines: list[str]) -> list[dict[str, Any]]:
    """Rows of every llama-bench table in the text, by the names of its JSON.

    Other tables and prose are passed over.
    """
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
            test = _TEST.fullmatch(row.get("test", ""))
            if test and (test[1] or test[2]):
                names = TOOLS["llama-bench"]["columns"]
                known: dict[str, Any] = {name: row.get(column, "") for name, column in names.items()}
                known |= {name: int(count or 0) for name, count in test.groupdict().items()}
                known |= {
                    "model_size": _amount(row.get("size", "")),
                    "model_n_params": _amount(row.get("params", "")),
                }
                rows.append(known | {"avg_ts": re.split(r"[±+ ]", row.get("t/s", ""))[0]})
    return rows


def _amount(text: str) -> float:
    value, _, unit = text.partition(" ")
    return number(value) * float(TOOLS["llama-bench"]["amounts"].get(unit, 0))


def _line(line: str, source: Path | str, index: int) -> RunRecord:
    match = None
    if len(line) < _LINE_MAX:
        match = _LINE.fullmatch(line)
    written = ""
    if match:
        written = re.sub(r"[\s,;|]+", " ", match[1]).removesuffix(".gguf")
    name, quant = split(written)
    if match:
        speeds = [0.0 if value == "-" else number(value, -1.0) for value in (match[3], match[5])]
    else:
        speeds = [-1.0]
    if match is None or min(speeds) < 0 or not any(speeds) or not quant or not written.endswith(quant):
        raise BadDataError(source, f"line {index}", repr(line[:80]), _FORMS)
    prompt = int(match[2] or PROMPT_TOKENS)
    new = int(match[4] or NEW_TOKENS)
    tests = (("prefill", "pp", prompt), ("decode", "tg", new))
    samples = [sample(p, f"{t}{n}", n, n / v) for (p, t, n), v in zip(tests, speeds, strict=True) if v]  # type: ignore[arg-type]
    scenario = Scenario(prompt_tokens=prompt, new_tokens=new)
    if " - " in quant:
        mixture = mixture_in(quant)
    else:
        mixture = quant
    return record(f"{source}, line {index}", "pasted", samples, scenario=scenario, name=name, quant=mixture)
