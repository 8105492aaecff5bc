"""The same model on other machines: predictions that a page shows beside what was measured."""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from harness.answer.answer import Answer
from harness.answer.matrix import ask
from harness.answer.resolve import resolve_device, resolve_model
from harness.core.device import Device
from harness.core.errors import HarnessError
from harness.core.record import Record
from harness.core.units import GB, GIB, format_number
from harness.models.quant import split
from harness.show.drawing import Drawing, cell
from harness.show.panels import Panel, Section

KNOWN: Final = ("raspberry-pi-5", "iphone-16-pro", "macbook-air-m3", "rtx-4090-desktop")
"""A board, a phone, a laptop and a graphics card that people know."""
USUAL_DEVICES: Final = (
    "raspberry-pi-5",
    "iphone-16-pro",
    "macbook-air-m3",
    "rtx-4060-desktop",
    "rtx-4090-desktop",
)
USUAL_MODELS: Final = ("llama-3.2-3b", "llama-3.1-8b", "gpt-oss-20b", "qwen3-30b-a3b", "llama-3.3-70b")
USUAL_QUANT: Final = "Q4_K_M"
USUAL_CONTEXT: Final = 4096
_SAME_COUNT_RATIO: Final = 0.02


_PACES: Final = {0.0: "hardly", 1.0: "slow", 5.0: "as you read", 15.0: "fast", 50.0: "at once"}
"""What a speed from so many tokens/s on means to somebody who reads along."""


class MachineTable(NamedTuple):
    """Devices across, by speed; models down, by size. All in one quantisation and one context."""

    columns: list[str]
    rows: list[list[str]]
    running_count: int

    @property
    def pair_count(self) -> int:
        """Pairs of a model and a device."""
        return len(self.rows) * (len(self.columns) - 1)


def known_machines(record: Record) -> list[Answer]:
    """The model of a run on machines that people know; empty where the catalog has no such model."""
    name = _catalog_name(record)
    context = max(record.scenario.context_tokens, 64)
    if name:
        with suppress(HarnessError):
            return [found for _, found in ask(KNOWN, (name,), (record.quant,), (context,)) if found]
    return []


def tables(
    records: Sequence[Record],
    *,
    devices: Sequence[str] = (),
    models: Sequence[str] = (),
) -> list[MachineTable]:
    """A table of devices and models; what nobody named is the records' models, and a few of each.

    Raises:
        UnknownNameError: A pattern matches nothing.
        InputError: There are too many cells.
    """
    own = filter(None, map(_catalog_name, records))
    named = models or tuple(dict.fromkeys((*own, *USUAL_MODELS)))
    asked = list(ask(devices or USUAL_DEVICES, named, (USUAL_QUANT,), (USUAL_CONTEXT,)))
    answers = {(found.device.name, found.model.name): found for _, found in asked if found}
    speeds: defaultdict[str, float] = defaultdict(float)
    sizes: defaultdict[str, float] = defaultdict(float)
    for (name, model), found in answers.items():
        speeds[name] += found.prediction.speed.decode_tokens_per_s.mid * found.runs
        sizes[model] = max(sizes[model], found.prediction.memory.peak_bytes.mid)
    by_speed = sorted(speeds, key=speeds.__getitem__)
    columns = ["model"]
    for name in by_speed:
        device = resolve_device(name)
        columns.append(cell(device.title, small=_memory(device)))
    rows = []
    for model in sorted(sizes, key=sizes.__getitem__):
        row = [answers.get((name, model)) for name in by_speed]
        title = next(found.model.title for found in row if found)
        rows.append([title, *map(_place, row)])
    return [MachineTable(columns, rows, sum(found.runs for found in answers.values()))]


def heat(table: MachineTable) -> Section:
    """The table as a page shows it."""
    lead = (
        f"Predicted, in {USUAL_QUANT} with {USUAL_CONTEXT:,} tokens of context: {table.running_count} of "
        f"{table.pair_count} run. The word for its speed, tokens a second, and in brackets where nine of ten "
        "measurements should lie."
    )
    return Section(
        "tables",
        "On other machines",
        lead,
        [Panel("", columns=table.columns, rows=table.rows, kind="heat")],
        note="At once: 50 tokens/s and more. Fast: 15 to 50. As you read: 5 to 15. Slow: 1 to 5. Hardly: under 1. "
        "Unsure: the interval spans three words or more. From storage: weights are read while it writes.",
    )


def how(found: Answer) -> str:
    """In a word or two where the model lies, if not all in one place."""
    if found.best.kind.is_read:
        return "from storage"
    if found.best.kind.is_whole:
        return ""
    has_own_memory = any(part.is_beside_ram for part in found.prediction.memory.parts)
    return "split" if has_own_memory else "on the CPU"


def _catalog_name(record: Record) -> str:
    """The name of the card of a run's model: one with the same name and as many weights; empty where no card has both."""
    if record.model is not None:
        with suppress(HarnessError):
            found = resolve_model(split(record.name)[0])
            count = found.weights.weight_count
            if found.card and abs(count - record.model.parameter_count) <= _SAME_COUNT_RATIO * count:
                return found.name
    return ""


def _memory(device: Device) -> str:
    pool = device.pool_of(device.api())
    size = f"{format_number(pool.total_bytes.value / GIB)} GiB"
    return f"{size} {pool.place}" if pool.is_own else size


def _pace(tokens_per_s: float) -> int:
    """How many of the paces a speed reaches: 1 for the slowest."""
    return sum(tokens_per_s >= least for least in _PACES)


def _place(found: Answer | None) -> Drawing:
    """One answer: the word, the figures, and how; the darker the faster."""
    if found is None:
        return cell(Drawing("<b>no</b>cannot be run so"), "h0")
    verdict = found.prediction.verdict
    if not found.runs:
        sizes = (format_number(size / GB, 2) for size in (verdict.needed_bytes, verdict.available_bytes))
        return cell(Drawing("<b>no</b>needs {} GB of {}".format(*sizes)), "h0")
    speed = found.prediction.speed.decode_tokens_per_s
    step = _pace(speed.mid)
    word = list(_PACES.values())[step - 1]
    if _pace(speed.high) - _pace(speed.low) > 1:
        word += ", unsure"
    before = ""
    after = ""
    if speed.mid < 0.5:
        speed = speed.through(lambda rate: 1 / rate)
        before = "a token in "
        after = " s"
    mid, low, high = (format_number(value, 2) for value in (speed.mid, speed.low, speed.high))
    figures = f"{before}{mid}{after} ({low} to {high})"
    return cell(Drawing(f"<b>{word}</b>{figures}"), f"h{step}", how(found))
