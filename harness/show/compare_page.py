"""The page that compares several answers: the winner with its margin, one axis for all, and the other figures."""

from collections.abc import Mapping, Sequence

from harness.answer.answer import Answer, ReadingKind
from harness.core.prediction import Interval
from harness.show.drawing import Drawing, cell
from harness.show.first_screen import (
    UNSURE_RATIO,
    between_s,
    each,
    heads_of,
    of_sizes,
    seconds,
    two,
)
from harness.show.panels import Headline, Note, Panel, Section
from harness.show.ranking import LIKELY, SURE, Standing, chance_faster, finding, ranked
from harness.show.state import State
from harness.show.tiles import SPEED_NOTE, axis_row, evidence_words, room_words, speed_axis, speed_row


def standings(answers: Sequence[Answer]) -> list[Standing]:
    """The answers by speed, each by the name that tells it apart."""
    return ranked([(name, each(one) if one.runs else None) for name, one in named(answers).items()])


def named(answers: Sequence[Answer]) -> dict[str, Answer]:
    """The answers by the name that tells each apart: its device, its model, or both."""
    return dict(zip(heads_of(answers), answers, strict=True))


def headline(answers: Sequence[Answer]) -> Headline:
    """The winner and its speed where that is sure enough; else that they are too close to call."""
    found = standings(answers)
    running = [(one.name, one.speed) for one in found if one.speed]
    if not running:
        return Headline(before=finding(found), verdict="No.")
    name, speed = running[0]
    if len(running) > 1 and chance_faster(speed, running[1][1]) < LIKELY:
        return Headline(before=finding(found), verdict="Too close to call.")
    between = f"{two(speed.low)} to {two(speed.high)}"
    after = f"likely {between}"
    if len(running) > 1:
        after = f"{two(speed.mid / running[1][1].mid)} times the next one; {after}"
    sure = len(running) == 1 or chance_faster(speed, running[1][1]) >= SURE
    verdict = f"{name}." if sure else f"Probably {name}."
    if speed.high > UNSURE_RATIO * speed.low:
        return Headline("It writes", after=f"between {between} tokens a second: unsure", verdict=verdict)
    return Headline("It writes", two(speed.mid), "tokens a second", after, verdict)


def note(answers: Sequence[Answer]) -> Note | None:
    """Who ties, and the run that would settle most of it: that of the widest range."""
    found = [one for one in standings(answers) if one.speed]
    for rank in sorted({one.rank for one in found}):
        tied = [(one.name, one.speed) for one in found if one.rank == rank and one.speed]
        if len(tied) > 1:
            widest, speed = max(tied, key=lambda pair: pair[1].high / pair[1].low)
            names = ", ".join(name for name, _ in tied)
            text = f"{names}: all near {two(tied[0][1].mid)} tokens/s. {widest} is known least: {two(speed.low)} to "
            return Note(
                State.DISTURBED,
                "Too close to call",
                f"{text}{two(speed.high)}. A run there settles most of it.",
            )
    return None


def speeds_section(answers: Sequence[Answer]) -> Section:
    """All answers on one axis, the fastest first and the winner in a colour of its own."""
    by_name = named(answers)
    found = standings(answers)
    axis = speed_axis(answers)
    rows = []
    for place, standing in enumerate(found):
        one = by_name[standing.name]
        word, _ = room_words(one)
        remark = f"{word} · {evidence_words(one.prediction.speed.decode_evidence)}" if one.runs else ""
        rank = f"rank {standing.rank}" if standing.rank else ""
        rows.append(
            (*speed_row(standing.name, rank, one, axis, "", is_own=place == 0 and one.runs)[:3], cell(remark))
        )
    rows.append(axis_row(axis))
    panel = Panel("", columns=("", "slower to faster", cell("tokens/s", "n"), "how"), rows=rows, kind="rows")
    return Section(
        "speeds", finding(found), "Writing speed, fastest first, on one axis.", [panel], note=SPEED_NOTE
    )


def figures_section(answers: Sequence[Answer]) -> Section:
    """The other figures of each answer; the best of a column is bold where it is sure."""
    by_name = named(answers)
    order = [standing.name for standing in standings(answers)]
    starts = {name: _starts(one) for name, one in by_name.items()}
    pages = {name: _after_pages(one) for name, one in by_name.items()}
    rows = []
    for name in order:
        one = by_name[name]
        verdict = one.prediction.verdict
        memory = cell(of_sizes(verdict.needed_bytes, verdict.available_bytes), "n", room_words(one)[1])
        rows.append((cell(name), _time_cell(name, starts), _time_cell(name, pages), _full_cell(one), memory))
    heads = (
        "",
        *(cell(name, "n") for name in ("first word", "after pages", "when full, tokens/s", "memory")),
    )
    panel = Panel("", columns=heads, rows=rows)
    lead = "Bold: best, and surely so (nine in ten). Unsure: the range is over four times wide."
    return Section("figures", "How long the first word takes, and the room", lead, [panel])


def _starts(one: Answer) -> Interval | None:
    return one.prediction.speed.ttft_warm_s if one.runs else None


def _after_pages(one: Answer) -> Interval | None:
    for reading in one.reading:
        if reading.kind is ReadingKind.DOCUMENT and one.runs:
            return reading.seconds
    return None


def _time_cell(name: str, times: Mapping[str, Interval | None]) -> Drawing:
    """A time with its range; bold where it is surely the shortest."""
    value = times[name]
    if value is None:
        return cell("", "n")
    text = "unsure" if value.high > UNSURE_RATIO * value.low else seconds(value.mid)
    rivals = [other for at, other in times.items() if at != name and other is not None]
    if rivals and all(chance_faster(other, value) >= SURE for other in rivals):
        return cell(Drawing(f"<b>{text}</b>"), "n", f"{between_s(value)} · best")
    return cell(text, "n", between_s(value))


def _full_cell(one: Answer) -> Drawing:
    """The speed of each user with all of the context filled."""
    if not one.by_depth or not one.runs:
        return cell("", "n")
    value = one.by_depth[-1].decode_tokens_per_s.through(lambda rate: rate / one.scenario.batch_count)
    text = "unsure" if value.high > UNSURE_RATIO * value.low else two(value.mid)
    return cell(text, "n", f"{two(value.low)} to {two(value.high)}")
