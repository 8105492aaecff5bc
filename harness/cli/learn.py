"""``edge-harness learn``: what the records of a fleet say of its devices."""

from pathlib import Path
from shutil import copy

import click

from harness.cli._output import Answer, answers, say
from harness.errors import Exit, HarnessError


@click.command("learn")
@click.argument("records", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--out", "-o", type=click.Path(file_okay=False, path_type=Path), help="Also write each device's file there."
)
@answers
def COMMAND(records: tuple[Path, ...], out: Path | None) -> Answer:  # noqa: N802
    """Learn from RECORDS (files or folders of them), each for the device that it names; exit 1 if none is known.

    Records that contradict the others of their machine are named. What is written can be read by `learn` and by
    `devices calibrate --from` elsewhere, and adds to what is known there.
    """
    from harness.app.learn import devices_of, learn, measurements_in
    from harness.catalog.devices import load_device
    from harness.cli._lessons import render_lesson

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
