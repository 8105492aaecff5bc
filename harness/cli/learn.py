"""``edge-harness learn``: what the records of a fleet say of its devices."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click

from harness.cli.command import refuse_typed, verb
from harness.core.errors import BadDataError, Exit, HarnessError
from harness.core.option import Option
from harness.core.printable import clean_lines
from harness.core.units import counted, format_number
from harness.show.output import Output, say, table

if TYPE_CHECKING:
    from harness.core.prediction import Interval
    from harness.speed.coefficients import TaughtSpeed
    from harness.verbs.learn import Lesson


@verb
def learn(
    records: Annotated[tuple[Path, ...], Option(metavar="[RECORDS]...", is_here=True)] = (),
    device: Annotated[
        str | None,
        Option(
            "--device",
            "Attribute every measurement to this device, whatever device it names.",
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
    share: Annotated[
        tuple[str, ...],
        Option(
            "--share",
            "Print this run as rows of the published tables, to send to the project; repeatable.",
            is_repeated=True,
        ),
    ] = (),
) -> Output:
    """Learn from measurements, so that later predictions for those devices are better.

    RECORDS are files or folders: records, output or tables of llama-bench, a server's answers as JSON, pasted
    lines. Each measurement counts for the device that it names, or all of them for --device; --device alone
    learns again from what is kept. Records that contradict the others of their machine are named. The file
    that keeps what was learnt can be learnt from on another machine.

    Exit status: 0 something was learnt, 1 no device of them is known.

    Example: edge-harness learn --device rtx-4090-desktop --line 'qwen3-8b Q4_K_M 5123 145.2'
    """
    from harness.answer.resolve import resolve_device
    from harness.verbs.learn import devices_of, forget, learn, pasted_line
    from harness.verbs.results import gather
    from harness.verbs.share import shared

    if share:
        refuse_typed({"records", "device", "lines", "forgotten"}, "with --share")
        text = clean_lines(shared(gather(share)))
        return Output({"shared": text}, lambda: click.echo(text, nl=False))
    if not (records or device) or ((lines or forgotten) and not device):
        raise click.UsageError("expected RECORDS, or --device, alone or with --line or --forget")
    refuse_typed({"records", "lines"}, "with --forget", when=forgotten)
    profile = resolve_device(device) if device else None
    if forgotten and profile:
        path = forget(profile.name)
        return Output({"forgotten": str(path)}, lambda: click.echo(f"forgotten: {path}"))
    named, passed_over = _read(records)
    unknown: dict[str, int] = {}
    if profile is not None:
        measured = [one for _, one in named]
        for line in lines:
            measured += pasted_line(line)
        lessons = [learn(profile, measured)]
    else:
        known, unknown = devices_of(named)
        lessons = [learn(resolve_device(name), measured) for name, measured in sorted(known.items())]

    lines_said = [f"skipped: {line}" for line in passed_over]
    for name, count in sorted(unknown.items()):
        many = counted(count, "measurement")
        lines_said.append(f"not used: {many} of an unknown device, {name!r}; name it with --device")

    def show() -> None:
        for lesson in lessons:
            _show(lesson)
        say(*lines_said)

    document = {"lessons": lessons, "unknown": unknown, "passed_over": passed_over}
    return Output(document, show, Exit.OK if lessons else Exit.BROKEN)


def _read(paths: tuple[Path, ...]) -> "tuple[list[tuple[str, TaughtSpeed]], list[str]]":
    """Measurements with the device that each names, and why files of a folder were passed over."""
    from harness.verbs.learn import measurements_in

    named = []
    passed_over = []
    for path in paths:
        files = sorted(path.glob("**/*.json")) if path.is_dir() else [path]
        if not files:
            raise BadDataError(path, "", "a folder without .json files", "measurements")
        for file in files:
            try:
                named += measurements_in(file)
            except HarnessError as error:
                if file == path:
                    raise
                passed_over.append(str(error))
    return named, passed_over


def _show(lesson: "Lesson") -> None:
    """Print what each measurement said and what was predicted before and after."""
    rows = []
    doubts = []
    for taken in lesson.taken:
        one = taken.measurement
        name = one.model
        if one.quant not in name:
            name += f" {one.quant}"
        before, after = _words(taken.before), _words(taken.after)
        rows.append((name, one.test, one.api, format_number(one.tokens_per_s), before, after))
        if taken.doubt:
            doubts.append(f"  {one.model} {one.test}: {taken.doubt}")
    used = counted(sum(taken.after is not None for taken in lesson.taken), "measurement")
    columns = ("model", "test", "api", "measured", "predicted before", "predicted now")
    say(
        f"{lesson.device}: learnt from {used}; every later prediction for it uses them.",
        table("speed in tokens/s, with 90 % intervals", columns, rows),
        *doubts,
        f"  kept in {lesson.path}; `edge-harness learn --device {lesson.device} --forget` forgets it",
    )


def _words(value: "Interval | None") -> str:
    if value is None:
        return "not used"
    return f"{format_number(value.mid)} ({format_number(value.low)} to {format_number(value.high)})"
