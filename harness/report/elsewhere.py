"""The same model on other machines: predictions that a page shows beside what was measured."""

from collections.abc import Sequence
from enum import Enum
from typing import Final, NamedTuple

from harness.app.matrix import Cell, Grid, ask
from harness.domain.device import DeviceProfile
from harness.domain.quant import split
from harness.domain.record import RunRecord
from harness.errors import HarnessError
from harness.report.drawing import Drawing, cell
from harness.report.panels import Panel, Section
from harness.units import GB, format_number

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


class Pace(Enum):
    """What a speed means to somebody who reads along; the value is its least tokens/s and its word."""

    AT_ONCE = (50.0, "at once")
    FAST = (15.0, "fast")
    AS_YOU_READ = (5.0, "as you read")
    SLOW = (1.0, "slow")
    HARDLY = (0.0, "hardly")

    @classmethod
    def of(cls, tokens_per_s: float) -> "Pace":
        """The fastest pace that the speed reaches."""
        return next(pace for pace in cls if tokens_per_s >= pace.value[0])

    @property
    def word(self) -> str:
        """How a page calls it."""
        return self.value[1]

    @property
    def step(self) -> int:
        """Darkness of its cell, 5 for the fastest."""
        return 5 - list(Pace).index(self)


class Place(NamedTuple):
    """One answer in a table of devices and models: its darkness (0: it does not run), its word, figures, and how."""

    step: int
    word: str
    figures: str
    how: str


class Table(NamedTuple):
    """Devices across, by speed; models down, by size. All in one quantisation and one context."""

    quant: str
    context_tokens: int
    devices: list[tuple[str, str]]
    rows: list[tuple[str, list[Place]]]

    @property
    def pair_count(self) -> int:
        """Pairs of a model and a device."""
        return len(self.devices) * len(self.rows)

    @property
    def running_count(self) -> int:
        """Of these, the ones that run."""
        return sum(place.step > 0 for _, places in self.rows for place in places)


def known_machines(record: RunRecord) -> list[tuple[DeviceProfile, Cell]]:
    """The model of a run on machines that people know; empty where the catalog has no such model."""
    grid = _grid_of(record)
    if grid:
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
    own = [name for name in map(_catalog_name, records) if name]
    grid = ask(
        devices=devices or USUAL_DEVICES,
        models=models or tuple(dict.fromkeys((*own, *USUAL_MODELS))),
        quants=(USUAL_QUANT,),
        contexts=(USUAL_CONTEXT,),
    )
    cells = list(grid.cells())
    titles = {model.name: model.card.title if model.card else model.name for model in grid.models}
    sizes = {model.name: model.weights.weight_count for model in grid.models}
    profiles = {device.name: device for device in grid.devices}
    by_speed = sorted(profiles, key=lambda name: sum(_speed(one) for one in cells if one.device == name))
    answers = {(one.model, one.device): _place(one, profiles[one.device]) for one in cells}
    by_size = sorted(sizes, key=sizes.__getitem__)
    rows = [(titles[model], [answers[model, device] for device in by_speed]) for model in by_size]
    heads = [(profiles[name].title, _memory(profiles[name])) for name in by_speed]
    return [Table(USUAL_QUANT, USUAL_CONTEXT, heads, rows)]


def heat(table: Table) -> Section:
    """The table as a page shows it."""
    lead = (
        f"Predicted, in {table.quant} with {table.context_tokens:,} tokens of context: {table.running_count} of "
        f"{table.pair_count} run. The word for its speed, tokens a second, and in brackets where nine of ten "
        "measurements should lie."
    )
    heads = ("model", *(cell(name, small=memory) for name, memory in table.devices))
    rows = []
    for model, places in table.rows:
        made = [Drawing(f"<b>{place.word}</b>{place.figures}") for place in places]
        cells = [cell(text, f"h{place.step}", place.how) for text, place in zip(made, places, strict=True)]
        rows.append((model, *cells))
    return Section(
        "tables",
        "On other machines",
        lead,
        [Panel("", columns=heads, rows=rows, kind="heat")],
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
    if has_own_memory:
        return "split"
    return "on the CPU"


def _grid_of(record: RunRecord) -> Grid | None:
    name = _catalog_name(record)
    if not name:
        return None
    try:
        return ask(
            devices=KNOWN,
            models=(name,),
            quants=(record.quant,),
            contexts=(max(record.scenario.context_tokens, 64),),
        )
    except HarnessError:
        return None


def _catalog_name(record: RunRecord) -> str:
    """The card that a run's model has in the catalog: of that name, and of as many weights.

    Empty for none.
    """
    if record.model is None:
        return ""
    try:
        (found,) = ask(devices=KNOWN[:1], models=(split(record.name)[0],)).models
    except (HarnessError, ValueError):
        return ""
    count = found.weights.weight_count
    is_same = abs(count - record.model.parameter_count) <= _SAME_COUNT_RATIO * count
    if is_same and found.card:
        return found.name
    return ""


def _speed(cell: Cell) -> float:
    if cell.decode_tokens_per_s:
        return cell.decode_tokens_per_s.mid
    return 0.0


def _memory(device: DeviceProfile) -> str:
    pool = device.pool(device.pool_for(device.api("")))
    card = ""
    if pool.name == "vram":
        card = " on the card"
    total_gb = pool.total_bytes.value / 2**30
    return f"{format_number(total_gb)} GiB{card}"


def _place(cell: Cell, device: DeviceProfile) -> Place:
    speed = cell.decode_tokens_per_s
    if speed is None or speed.mid <= 0:
        if cell.verdict == "impossible":
            return Place(0, "no", "cannot be run so", "")
        sizes = (format_number(size / GB, 2) for size in (cell.needed_bytes, cell.available_bytes))
        return Place(0, "no", "needs {} GB of {}".format(*sizes), "")
    pace = Pace.of(speed.mid)
    word = pace.word
    if Pace.of(speed.high).step - Pace.of(speed.low).step > 1:
        word += ", unsure"
    mid, low, high = (format_number(value, 2) for value in (speed.mid, speed.low, speed.high))
    figures = f"{mid} ({low} to {high})"
    if speed.mid < 0.5:
        mid, low, high = (format_number(1 / value, 2) for value in (speed.mid, speed.high, speed.low))
        figures = f"a token in {mid} s ({low} to {high})"
    return Place(pace.step, word, figures, how(cell, device))
