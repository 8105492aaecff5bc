"""What measurements taught, for the terminal."""

from typing import TYPE_CHECKING

from harness.cli._output import say, table
from harness.units import format_number

if TYPE_CHECKING:
    from harness.app.learn import Lesson, Taken
    from harness.domain.prediction import Interval


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
