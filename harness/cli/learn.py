"""``edge-harness learn``: what the records of a fleet say of its devices."""

from pathlib import Path
from shutil import copy
from typing import TYPE_CHECKING, Annotated

import click

from harness.cli._command import refuse_typed, verb
from harness.cli._output import Answer, say, table
from harness.domain.option import Option
from harness.errors import BadDataError, Exit, HarnessError
from harness.units import counted, format_number

if TYPE_CHECKING:
    from harness.app.learn import Lesson, Taken
    from harness.domain.prediction import Interval
    from harness.predict.coefficients import TaughtSpeed


@verb
def learn(
    records: Annotated[tuple[Path, ...], Option(metavar="[RECORDS]...", is_here=True)] = (),
    device: Annotated[
        str | None,
        Option(
            "--device",
            "Attribute every measurement to this device, whatever device it names.",
            metavar="DEVICE",
            names="devices",
        ),
    ] = None,
    lines: Annotated[
        tuple[str, ...],
        Option(
            "--line",
            "One measurement: 'qwen3-8b Q4_K_M 512.3 45.1' (pp512, tg128); repeatable.",
            is_repeated=True,
        ),
    ] = (),
    forgotten: Annotated[
        bool, Option("--forget", "Forget everything that was learnt about --device.")
    ] = False,
    out: Annotated[
        Path | None,
        Option(
            "--out -o",
            "Copy what was learnt about each device to this folder, as a file to share.",
            "Output",
            path="folder",
        ),
    ] = None,
) -> Answer:
    """Learn from measurements, so that later predictions for those devices are better.

    RECORDS are files or folders: records, output or tables of llama-bench, a server's answers as JSON, pasted
    lines. Each measurement counts for the device that it names, or all of them for --device; --device alone
    learns again from what is kept. Records that contradict the others of their machine are named. What --out
    writes can be learnt from on another machine.

    Exit status: 0 something was learnt, 1 no device of them is known.

    Example: edge-harness learn --device rtx-4090-desktop --line 'qwen3-8b Q4_K_M 5123 145.2'
    """
    from harness.app.learn import devices_of, forget, learn, pasted_line
    from harness.app.resolve import resolve_device

    if not (records or device) or (lines and not device):
        raise click.UsageError("expected RECORDS, or --device, alone or with --line or --forget")
    refuse_typed({"records", "lines", "out"}, "with --forget", when=forgotten)
    profile = None
    if device:
        profile = resolve_device(device)
    if forgotten and profile:
        path = forget(profile.name)
        return Answer({"forgotten": str(path)}, lambda: click.echo(f"forgotten: {path}"))
    named, passed_over = _read(records)
    unknown: dict[str, int] = {}
    if profile is not None:
        pasted = [one for line in lines for one in pasted_line(line)]
        lessons = [learn(profile, [*(measurement for _, measurement in named), *pasted])]
    else:
        known, unknown = devices_of(named)
        lessons = [learn(resolve_device(name), measurements) for name, measurements in sorted(known.items())]
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for lesson in lessons:
            copy(lesson.path, out)

    def show() -> None:
        for lesson in lessons:
            render_lesson(lesson)
        for line in passed_over:
            say(f"skipped: {line}")
        for name, count in sorted(unknown.items()):
            say(
                f"not used: {counted(count, 'measurement')} of an unknown device, {name!r}; name it with --device"
            )

    document = {"lessons": lessons, "unknown": unknown, "passed_over": passed_over}
    return Answer(document, show, Exit.OK if lessons else Exit.BROKEN)


def _read(paths: tuple[Path, ...]) -> "tuple[list[tuple[str, TaughtSpeed]], list[str]]":
    """Measurements with the device that each names, and why files of a folder were passed over."""
    from harness.app.learn import measurements_in

    named = []
    passed_over = []
    for path in paths:
        files = [path]
        if path.is_dir():
            files = sorted(path.glob("**/*.json"))
        if not files:
            raise BadDataError(path, "", "a folder without .json files", "measurements")
        for file in files:
            try:
                named += measurements_in(file)
            except HarnessError as error:
                if not path.is_dir():
                    raise
                passed_over.append(str(error))
    return named, passed_over


def render_lesson(lesson: "Lesson") -> None:
    """Print what each measurement said and what was predicted before and after."""
    used = [t for t in lesson.taken if t.after is not None]
    doubted = [t for t in lesson.taken if t.doubt]
    say(
        f"{lesson.device}: learnt from {counted(len(used), 'measurement')}; every later prediction for it uses them."
    )
    columns = ("model", "test", "api", "measured", "predicted before", "predicted now")
    say(table("speed in tokens/s, with 90 % intervals", columns, map(_row, lesson.taken)))
    for one in doubted:
        say(f"  {one.measurement.model} {one.measurement.test}: {one.doubt}")
    say(f"  kept in {lesson.path}; `edge-harness learn --device {lesson.device} --forget` forgets it")


def _row(taken: "Taken") -> tuple[str, ...]:
    one = taken.measurement
    measured = format_number(one.tokens_per_s)
    if one.quant and one.quant not in one.model:
        name = f"{one.model} {one.quant}"
    else:
        name = one.model
    return name, one.test, one.api, measured, _words(taken.before), _words(taken.after)


def _words(value: "Interval | None") -> str:
    if value is None:
        return "not used"
    return f"{format_number(value.mid)} ({format_number(value.low)} to {format_number(value.high)})"
