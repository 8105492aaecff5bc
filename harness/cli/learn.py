"""``edge-harness learn``: what the records of a fleet say of its devices."""

from pathlib import Path
from shutil import copy
from typing import TYPE_CHECKING

import click

from harness.cli import _options as options
from harness.cli._output import Answer, answers, say, table
from harness.errors import Exit, HarnessError
from harness.units import format_number

if TYPE_CHECKING:
    from harness.app.learn import Lesson, Taken
    from harness.domain.prediction import Interval


@click.command("learn")
@click.argument("records", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--out", "-o", type=options.FOLDER, help="Also write each device's file there.")
@answers
def learn(records: tuple[Path, ...], out: Path | None) -> Answer:
    """Learn from RECORDS (files or folders of them), each for the device that it names; exit 1 if none is known.

    Records that contradict the others of their machine are named. What is written can be read by `learn` and by
    `devices calibrate --from` elsewhere, and adds to what is known there.
    """
    from harness.app.learn import devices_of, learn, measurements_in
    from harness.catalog.devices import load_device

    found, passed_over = [], []
    for path in records:
        for file in sorted(path.glob("**/*.json")) if path.is_dir() else [path]:
            try:
                found += measurements_in(file)
            except HarnessError as error:
                if not path.is_dir():
                    raise
                passed_over.append(str(error))
    known, unknown = devices_of(found)
    lessons = [learn(load_device(name), found) for name, found in sorted(known.items())]
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for lesson in lessons:
            copy(lesson.path, out)

    def show() -> None:
        for lesson in lessons:
            render_lesson(lesson)
        for line in passed_over:
            say(f"passed over: {line}")
        for said, count in sorted(unknown.items()):
            say(f"{count} measurements of {said!r}: no device known by that; `devices calibrate NAME` takes them")

    document = {"lessons": lessons, "unknown": unknown, "passed_over": passed_over}
    return Answer(document, show, Exit.OK if lessons else Exit.BROKEN)


def render_lesson(lesson: "Lesson") -> None:
    """Print what each measurement said, what was believed before and after, and which terms moved."""
    used = [t for t in lesson.taken if t.after is not None]
    doubted = [t for t in lesson.taken if t.doubt]
    many = "1 measurement" if len(used) == 1 else f"{len(used)} measurements"
    say(f"{lesson.device}: learnt from {many}; from now on every prediction for it uses this.")
    columns = ("model", "test", "api", "measured", "believed before", "believed now")
    say(table("speed in tokens/s, with 90 % intervals", columns, map(_row, lesson.taken), right=(3,)))
    for one in doubted:
        say(f"  {one.measurement.model} {one.measurement.test}: {one.doubt}")
    moved = [(k, f"{a:.3g}", f"{b:.3g}", f"{v:.0%}", f"{w:.0%}") for k, a, b, v, w in lesson.moved]
    say(table("what moved most", ("term", "factor before", "now", "known to", "now"), moved, right=(1, 2, 3, 4)))
    say(f"  kept in {lesson.path}, to share; `devices calibrate {lesson.device} --forget` forgets it")


def _row(taken: "Taken") -> tuple[str, ...]:
    one = taken.measurement
    measured = format_number(one.tokens_per_s)
    name = f"{one.model} {one.quant}" if one.quant and one.quant not in one.model else one.model
    return name, one.test, one.api, measured, _words(taken.before), _words(taken.after)


def _words(value: "Interval | None") -> str:
    if value is None:
        return "not used"
    return f"{format_number(value.mid)} ({format_number(value.low)} to {format_number(value.high)})"
