"""The page that answers one question: sentence, tiles, memory, commands, what would change it, other machines."""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import NamedTuple

from harness.answer.answer import Answer, answer
from harness.answer.variations import Variation, best_change, spare_bytes
from harness.core.errors import HarnessError
from harness.core.question import Question
from harness.core.tables import shipped_rows
from harness.core.units import GIB
from harness.hardware.devices import load_device
from harness.show import words
from harness.show.drawing import cell, stack, swatch
from harness.show.first_screen import (
    READ_TOKENS_PER_S,
    UNSURE_RATIO,
    as_you_read,
    basis_line,
    device_name,
    each,
    instead_line,
    model_name,
    own_place,
    sentence,
    sizes,
    two,
    way_words,
)
from harness.show.panels import Headline, Note, Panel, Section
from harness.show.ranking import SURE, chance_faster
from harness.show.state import State
from harness.show.tiles import SPEED_NOTE, axis_row, evidence_words, room_words, speed_axis, speed_row

_COLOURS = ("w", "k", "c", "v", "r")


class UsualMachine(NamedTuple):
    """A machine that people own, as ``data/usual_machines.csv`` has it."""

    device: str
    title: str
    detail: str
    in_matrix: bool


@cache
def usual_machines() -> tuple[UsualMachine, ...]:
    """Machines that people own, for tables of one model on many.

    Raises:
        BadDataError: A machine that stands twice, or that no name of a device or part means.
    """

    def known(cell: str) -> str:
        try:
            load_device(cell)
        except HarnessError as error:
            return str(error)
        return ""

    columns = {"device": known, "in_matrix": ("", "yes")}
    rows = shipped_rows("data/usual_machines.csv", columns=columns, unique=("device", "title detail"))
    return tuple(
        UsualMachine(row["device"], row["title"], row["detail"], row["in_matrix"] == "yes") for row in rows
    )


def headline(one: Answer) -> Headline:
    """The verdict, the likeliest speed, the place and the range; without a figure where that is unsure."""
    verdict, _, rest = sentence(one).partition(". ")
    if not one.runs or one.prediction.speed.decode_evidence.is_unmeasured:
        return Headline(before=rest.rstrip(".") or verdict, verdict=f"{verdict}." if rest else "")
    speed = each(one)
    verb = "reads" if one.reads_only else "writes"
    between = f"{two(speed.low)} to {two(speed.high)}"
    feel = ". ".join(filter(None, (as_you_read(speed).capitalize(), basis_line(one))))
    before = f"{model_name(one)} {verb}"
    place = f"on {device_name(one)}"
    if how := way_words(one.best, one.layer_count, one.card_titles):
        place += f"; {how}"
    if speed.high > UNSURE_RATIO * speed.low:
        return Headline(
            before,
            after=f"between {between} tokens a second {place}: unsure",
            verdict=f"{verdict}.",
            feel=feel,
        )
    number, unit = two(speed.mid), "tokens a second"
    if speed.mid < 0.5:
        number, unit = two(1 / speed.mid), "seconds a token"
        between = f"{two(1 / speed.high)} to {two(1 / speed.low)}"
    return Headline(before, number, unit, f"{place}; likely {between}", f"{verdict}.", feel)


def note(one: Answer, changes: Sequence[Variation] = ()) -> Note | None:
    """The one box: what to know before starting it, and the change that mends it; None where nothing is unusual.

    ``changes`` are the variations that were tried; the first that leaves room at the same speed is named.
    """
    if not one.runs:
        return Note(State.OUTSIDE, "It does not fit", instead_line(one))
    if one.best.kind.is_read:
        said = "The weights that have no room are read from storage for each token."
        return Note(State.DISTURBED, "Part of it is read from storage", f"{said} {instead_line(one)}")
    if one.best.kind.is_whole and not one.best.has_room:
        left = sizes(max(spare_bytes(one), 0))[0]
        said = "More than one machine in five lacks the room; then layers move to the CPU, and it is slower."
        for other in changes:
            if other.answer.best.has_room and other.answer.quant == one.quant:
                said += f" {other.change}: {sizes(spare_bytes(other.answer))[0]} to spare."
                break
        return Note(State.DISTURBED, f"{left} to spare: tight", said)
    for unsettled in one.prediction.speed.unsettled[:1]:
        return Note(State.DISTURBED, "Not known well enough", unsettled[:1].upper() + unsettled[1:] + ".")
    return None


def memory_section(one: Answer) -> Section:
    """Where the memory that binds goes: one bar as long as what there is, at most six parts and what is to spare."""
    verdict = one.prediction.verdict
    parts = one.prediction.memory.parts
    place = own_place(one)
    held: dict[str, float] = defaultdict(float)
    for part in parts:
        if part.is_beside_ram == bool(place):
            held[words.PARTS.get(part.kind, part.kind.value)] += part.size_bytes
    sized = sorted(held.items(), key=lambda pair: -pair[1])
    shown = [(name, size, kind) for (name, size), kind in zip(sized, _COLOURS, strict=False)]
    if rest := sum(size for _, size in sized[len(shown) :]):
        shown.append(("the rest", rest, "x"))
    used = sum(held.values())
    if verdict.available_bytes > used:
        shown.append(("to spare", verdict.available_bytes - used, "spare"))
    rows = [(swatch(kind, name), cell(sizes(size)[0], "n")) for name, size, kind in shown]
    says = ", ".join(f"{name} {sizes(size)[0]}" for name, size, _ in shown)
    where = place or "in RAM"
    lead = f"{where.capitalize()}, {used / GIB:.1f} of {verdict.available_bytes / GIB:.1f} GiB."
    picture = stack(shown, f"Memory {where}: {says}")
    panel = Panel("", columns=("part", cell("size", "n")), rows=rows, picture=picture)
    return Section("memory", "Where the memory goes", lead, [panel], is_half=True)


def changes_section(one: Answer, found: Sequence[Variation]) -> Section | None:
    """What would change the answer: the row as asked, then what gains, then what costs."""
    if not found:
        return None
    axis = speed_axis([one, *(other.answer for other in found)])
    cache = one.scenario.kv_type
    own = f"{one.scenario.context_tokens:,} tokens, cache in {cache}"
    rows = [
        speed_row("As asked", own, one, axis, "", is_own=True),
        *(speed_row(other.change, other.detail, other.answer, axis, "") for other in found),
        axis_row(axis),
    ]
    heads = ("change", "slower to faster", cell("tokens/s", "n"), "room")
    panel = Panel("", columns=heads, rows=rows, kind="rows")
    lead = "What would change the answer: what gains first, then what costs."
    return Section("changes", best_change(one, found), lead, [panel], note=SPEED_NOTE)


def on_machines(question: Question) -> list[tuple[UsualMachine, Answer]]:
    """The same question on machines that people own; without those where it cannot be asked."""
    found = []
    plain = question.replace(api="", program=None, placement=None, thread_count=0, ram_budget="")
    for machine in usual_machines():
        with suppress(HarnessError):
            found.append((machine, answer(plain.replace(device=machine.device), advises=False)))
    return found


def machines_section(one: Answer, others: Sequence[tuple[UsualMachine, Answer]]) -> Section | None:
    """The question on machines that people own, fastest first, the asked one tinted among them."""
    rows_of = [
        (machine.title, machine.detail, other)
        for machine, other in others
        if other.device.name != one.device.name
    ]
    if not rows_of:
        return None
    own_name = device_name(one).removeprefix("a ").removeprefix("an ")
    rows_of.append((own_name[:1].upper() + own_name[1:], "as asked", one))
    rows_of.sort(key=lambda row: -each(row[2]).mid if row[2].runs else 0.0)
    axis = speed_axis([row[2] for row in rows_of])
    rows = []
    for name, detail, other in rows_of:
        word, _ = room_words(other)
        remark = evidence_words(other.prediction.speed.decode_evidence) if other.runs else ""
        if other.runs and word != "fits":
            remark = f"{word} · {remark}"
        rows.append((*speed_row(name, detail, other, axis, remark, is_own=other is one)[:3], cell(remark)))
    rows.append(axis_row(axis))
    panel = Panel(
        "",
        columns=("machine", "slower to faster", cell("tokens/s", "n"), "how known"),
        rows=rows,
        kind="rows",
    )
    lead = "The same question on machines that people own, fastest first. All are predicted."
    return Section("machines", _machines_title(one, rows_of), lead, [panel], note=SPEED_NOTE)


def _machines_title(one: Answer, rows: Sequence[tuple[str, str, Answer]]) -> str:
    """The extremes beside the asked machine, where the difference is sure; else how many write as fast as you read."""
    said = []
    if one.runs:
        own = each(one)
        running = [(name, each(other)) for name, _, other in rows if other.runs and other is not one]
        if running:
            name, best = max(running, key=lambda row: row[1].mid)
            if chance_faster(best, own) >= SURE:
                said.append(f"{name} writes {two(best.mid / own.mid)} times as fast")
            name, last = min(running, key=lambda row: row[1].mid)
            if chance_faster(own, last) >= SURE:
                said.append(f"{name} takes {two(own.mid / last.mid)} times as long")
    if said:
        return "; ".join(said)
    count = sum(other.runs and each(other).mid >= READ_TOKENS_PER_S for _, _, other in rows)
    return f"{count} of {len(rows)} machines write as fast as you read"
