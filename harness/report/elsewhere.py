"""The same model on other machines: predictions that a page shows beside what was measured."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from harness.app.matrix import Cell, ask
from harness.domain.device import DeviceProfile
from harness.domain.quant import split
from harness.domain.record import RunRecord
from harness.errors import HarnessError
from harness.report.drawing import Drawing, cell
from harness.report.panels import Panel, Section
from harness.units import GB, GIB, format_number

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


class Table(NamedTuple):
    """Devices across, by speed; models down, by size. All in one quantisation and one context."""

    columns: list[str]
    rows: list[list[str]]
    running_count: int

    @property
    def pair_count(self) -> int:
        """Pairs of a model and a device."""
        return len(self.rows) * (len(self.columns) - 1)


def known_machines(record: RunRecord) -> list[tuple[DeviceProfile, Cell]]:
    """The model of a run on machines that people know; empty where the catalog has no such model."""
    name = _catalog_name(record)
    context = max(record.scenario.context_tokens, 64)
    if name:
        with suppress(HarnessError):
            grid = ask(devices=KNOWN, models=(name,), quants=(record.quant,), contexts=(context,))
            return list(zip(grid.devices, grid.cells(), strict=True))
    return []


def tables(
    records: Sequence[RunRecord],
    *,
    devices: Sequence[str] = (),
    models: Sequence[str] = (),
) -> list[Table]:
    """A table of devices and models; what nobody named is the records' models, and a few of each.

    Raises:
        UnknownNameError: A pattern matches nothing.
        InputError: There are too many cells.
    """
    own = filter(None, map(_catalog_name, records))
    grid = ask(
        devices=devices or USUAL_DEVICES,
        models=models or tuple(dict.fromkeys((*own, *USUAL_MODELS))),
        quants=(USUAL_QUANT,),
        contexts=(USUAL_CONTEXT,),
    )
    answers = {(answer.device, answer.model): answer for answer in grid.cells()}
    speeds = dict.fromkeys((device.name for device in grid.devices), 0.0)
    for answer in answers.values():
        if answer.decode_tokens_per_s:
            speeds[answer.device] += answer.decode_tokens_per_s.mid
    by_speed = sorted(grid.devices, key=lambda device: speeds[device.name])
    columns = ["model", *(cell(device.title, small=_memory(device)) for device in by_speed)]
    rows = []
    for model in sorted(grid.models, key=lambda model: model.weights.weight_count):
        title = model.card.title if model.card else model.name
        rows.append([title, *(_place(answers[device.name, model.name], device) for device in by_speed)])
    running = sum(answer.decode_tokens_per_s is not None for answer in answers.values())
    return [Table(columns, rows, running)]


def heat(table: Table) -> Section:
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


def how(answer: Cell, device: DeviceProfile) -> str:
    """In a word or two where the model lies, if not all in one place."""
    if answer.verdict == "fits with streaming":
        return "from storage"
    if answer.verdict != "fits split":
        return ""
    has_own_memory = any(pool.name == "vram" for pool in device.pools)
    return "split" if has_own_memory else "on the CPU"


def _catalog_name(record: RunRecord) -> str:
    """The card that a run's model has in the catalog: of that name, and of as many weights.

    Empty for none.
    """
    if record.model is not None:
        with suppress(HarnessError, ValueError):
            (found,) = ask(devices=KNOWN[:1], models=(split(record.name)[0],)).models
            count = found.weights.weight_count
            if found.card and abs(count - record.model.parameter_count) <= _SAME_COUNT_RATIO * count:
                return found.name
    return ""


def _memory(device: DeviceProfile) -> str:
    pool = device.pool(device.pool_for(device.api("")))
    size = f"{format_number(pool.total_bytes.value / GIB)} GiB"
    return f"{size} on the card" if pool.name == "vram" else size


def _pace(tokens_per_s: float) -> int:
    """How many of the paces a speed reaches: 1 for the slowest."""
    return sum(tokens_per_s >= least for least in _PACES)


def _place(answer: Cell, device: DeviceProfile) -> Drawing:
    """One answer: the word, the figures, and how; the darker the faster."""
    speed = answer.decode_tokens_per_s
    step = 0
    word = "no"
    if speed is not None and speed.mid > 0:
        step = _pace(speed.mid)
        word = list(_PACES.values())[step - 1]
        if _pace(speed.high) - _pace(speed.low) > 1:
            word += ", unsure"
        shown = speed
        before = ""
        after = ""
        if speed.mid < 0.5:
            shown = speed.through(lambda rate: 1 / rate)
            before = "a token in "
            after = " s"
        mid, low, high = (format_number(value, 2) for value in (shown.mid, shown.low, shown.high))
        figures = f"{before}{mid}{after} ({low} to {high})"
    elif answer.verdict == "impossible":
        figures = "cannot be run so"
    else:
        sizes = (format_number(size / GB, 2) for size in (answer.needed_bytes, answer.available_bytes))
        figures = "needs {} GB of {}".format(*sizes)
    return cell(Drawing(f"<b>{word}</b>{figures}"), f"h{step}", how(answer, device))
