"""How pages call things: quantities, machines, settings, dates, and the words that they explain."""

import re
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from pathlib import PureWindowsPath
from typing import Final

from harness.core.prediction import Interval, Limit, PartKind
from harness.core.printable import clean
from harness.core.record import Record
from harness.core.result import Load, Quality, Soak, Speculation, Stream
from harness.core.units import GIB, counted, format_number
from harness.models.cards import named
from harness.models.quant import split
from harness.show.first_screen import as_you_read, capital
from harness.show.state import amount

QUANTITIES: Final = {
    "decode": "writes",
    "prefill": "reads a prompt",
    "first token": "first token",
    "first token, cold": "first token, the first time",
    "slow token": "the slowest of 100 tokens",
    "load": "loads",
    "load, cold": "loads, the first time",
    "peak memory": "memory at its highest",
    "anonymous memory": "memory that must stay",
    "buffers in vram": "buffers on the graphics card",
    "buffers in ram": "buffers in RAM",
}
LIMITS: Final = {
    Limit.WEIGHTS: "reading the weights from memory",
    Limit.DEQUANTISATION: "unpacking the weights to numbers that can be multiplied",
    Limit.KV_CACHE: "reading back the conversation so far",
    Limit.STORAGE: "reading from storage",
    Limit.LINK: "moving data between the cards and the CPU",
    Limit.OVERHEAD: "everything else",
}
PARTS: Final = {
    PartKind.WEIGHTS: "the weights",
    PartKind.CPU_WEIGHTS: "the weights with the CPU",
    PartKind.REPACKED: "weights, rewritten for this CPU",
    PartKind.KV_CACHE: "the conversation",
    PartKind.CPU_KV_CACHE: "the conversation, with the CPU",
    PartKind.COMPUTE: "scratch, while computing",
    PartKind.TABLE: "the table of tokens",
    PartKind.RUNTIME: "the program",
}
GLOSSARY: Final = {
    "token": "a piece of a word; 100 tokens are some 75 English words",
    "quantisation": "how many bits each weight is rounded to: Q4_K_M some 4.8, Q8_0 8.5, F16 16",
    "first token": "the wait until an answer begins; it grows with the prompt",
    "reads a prompt": "how fast the prompt is taken in, before the first token (prefill)",
    "writes": "how fast the answer comes, one token after the other (decode)",
    "predicted": "said before the run; of ten such intervals nine should hold the measured figure",
    "likeliest": "the middle of a prediction",
    "at the edge": "outside the predicted interval, but by less than the samples of the run differ",
    "disturbed": "other programs had the CPU, memory or disk: kept, and not believed",
    "MiB": "1,048,576 bytes; a GiB is 1,024 of them",
    "streamed": "weights that do not fit into memory are read from storage while it writes",
    "mapped": "the same, left to the operating system",
    "budget": "a limit that a build must keep",
    "undecided": "the interval holds the limit: neither a pass nor a fail",
    "same next token": "how often the quantised model would go on as the unquantised one does",
    "split": "part of the model on the graphics card, part with the CPU",
}
_MAKERS: Final = re.compile(r"\((R|TM)\)|\b(Intel|AMD|CPU|Processor)\b|@.*|\d+-Core", re.IGNORECASE)


def machine_words(record: Record) -> str:
    """The machine as the end of a sentence: ``this EPYC``, ``Raspberry Pi 5``."""
    machine = record.machine
    if machine.device != "this machine":
        return clean(machine.device, 60)
    chip = " ".join(_MAKERS.sub(" ", machine.cpu_model).split())
    return f"this {clean(chip, 40)}" if chip else "this machine"


def machine_line(record: Record) -> str:
    """The machine in full, as far as its record tells."""
    machine = record.machine
    if not machine.core_count:
        return clean(machine.cpu_model or machine.device)
    return (
        f"{clean(machine.cpu_model)}, {counted(machine.core_count, 'core')}, {machine.ram_bytes / GIB:.0f} GB"
    )


def engine_line(record: Record) -> str:
    """The engine and how it was driven."""
    api = record.scenario.api or (record.prediction.api if record.prediction else "")
    drives = {"cpu": " on the CPU"}.get(api, f" by {api}" if api else "")
    return f"{clean(record.engine.name if record.engine else record.runtime or 'unknown engine')}{drives}"


def date_words(created: str) -> str:
    """``1 December 2026, 08:59 UTC``."""
    at = datetime.fromisoformat(created)
    return f"{at.day} {at:%B %Y, %H:%M} UTC"


def short_date(created: str) -> str:
    """``1 Dec 08:59``."""
    at = datetime.fromisoformat(created)
    return f"{at.day} {at:%b %H:%M}"


def kind_words(record: Record) -> str:
    """What kind of run it was; empty for the usual one."""
    result = record.result
    if isinstance(result, Stream):
        return f"{clean(result.mode)}, {amount('bytes', result.budget_bytes)} allowed"
    if isinstance(result, Soak):
        return f"after {format_number(result.minutes)} minutes"
    if isinstance(result, Speculation):
        return f"with a draft ({clean(result.draft, 40)})"
    if isinstance(result, Load):
        return "all users together"
    if isinstance(result, Quality):
        return "quality"
    return clean(record.workload, 40) * (record.workload != "generate")


def _settings(record: Record) -> dict[str, str]:
    asked = record.scenario
    return {
        "kind": kind_words(record),
        "depth": f"after {asked.depth_tokens:,} tokens" if asked.depth_tokens else "empty context",
        "runtime": clean(record.runtime, 40),
        "target": f"over {record.target}" if record.target != "local" else "here",
        "api": asked.api,
        "placement": ""
        if asked.api in {"", "cpu"}
        else asked.placement.flags(1000).replace("-ngl 1001", "").strip(),
        "users": counted(asked.batch_count, "user"),
        "cache": f"cache in {asked.kv_type}",
        "threads": f"{asked.thread_count} threads" if asked.thread_count else "",
        "context": f"context of {asked.context_tokens:,}",
        "prompt": f"prompt of {asked.prompt_tokens:,}",
        "written": f"{asked.new_tokens:,} written",
    }


def setting_words(records: Sequence[Record]) -> list[str]:
    """What is special about each run: its kind, its depth, and what differs among others of its model and kind."""
    seen: dict[tuple[str, str, str, str], set[str]] = defaultdict(set)
    for record in records:
        for key, text in _settings(record).items():
            seen[record.name, record.quant, record.workload, key].add(text)
    lines = []
    for record in records:
        kept = []
        for key, text in _settings(record).items():
            differs = len(seen[record.name, record.quant, record.workload, key]) > 1
            if text and (differs or key == "kind" or (key == "depth" and record.scenario.depth_tokens)):
                kept.append(text)
        lines.append(", ".join(kept))
    return lines


def model_words(record: Record) -> str:
    """The model by its own name, without its quantisation, which stands beside it."""
    return name_words(record.name)


def name_words(name: str) -> str:
    """A model's name without the quantisation at its end; the title of its card where the catalog has it."""
    bare = split(name)[0]
    return clean(_titles().get(bare, bare or name), 60)


@cache
def _titles() -> dict[str, str]:
    return {name: titles[0].removesuffix(" Instruct") for name, titles in named()}


def reading_words(tokens_per_s: float) -> str:
    """A speed beside that of somebody who reads, as a sentence."""
    words = as_you_read(Interval(tokens_per_s, tokens_per_s, tokens_per_s))
    return f"{capital(words)}."


def without_folders(words: Sequence[str]) -> tuple[str, ...]:
    """A command line as it may be published: of a path from the root only its last part (folders name people)."""
    shown = []
    for word in words:
        head, sign, path = word.partition("=") if word.startswith("--") and "=" in word else ("", "", word)
        bare = PureWindowsPath(path)
        rooted = path.startswith(("/", "~", "\\\\")) or bool(bare.drive)
        shown.append(f"{head}{sign}{bare.name}" if rooted and bare.name else word)
    return tuple(shown)
