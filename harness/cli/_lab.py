"""What was typed after ``run``, as the cells of a lab: a command line for each model, depth, threads and batch."""

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import click

from harness.core.paths import as_path
from harness.core.printable import clean_lines
from harness.show.output import Output, say, table

if TYPE_CHECKING:
    from harness.cli._options import OverLab
    from harness.core.record import Record
    from harness.core.scenario import Scenario
    from harness.verbs.lab import LabCell, Place

_OF_CELLS: Final = {"depth_tokens": "--depth", "thread_counts": "--threads", "batch_count": "--batch"}
"""Parameters with several values, which are a cell each, and their flags."""
_OF_THE_LAB: Final = {*_OF_CELLS, "models", "target", "out", "scheduler", "wait_s", "resume", "as_json"}
"""Parameters that no cell's command line takes over."""


def over_lab(measuring: "OverLab", scenario: "Scenario") -> Output:
    """What was typed, on each place of a lab: its devices driven from here, or the workers of a scheduler."""
    from harness.show.progress_line import RunProgress
    from harness.show.record_tables import reasons, run_table
    from harness.verbs.lab import Devices, Scheduler, places_of, run_lab
    from harness.verbs.run import exit_of

    scheduler = measuring.scheduler
    places = places_of(measuring.target, scheduled=bool(scheduler))
    with measuring.started() as how:
        assert isinstance(how.listener, RunProgress)
        progress = how.listener
        cells = list(_cells(places, scenario, is_resumed=not scheduler and measuring.resume))

        def told(name: str, records: "list[Record]") -> None:
            outcomes = ", ".join(record.outcome for record in records)
            progress.step(f"{name} done", f"{name}: {outcomes}")

        progress.begin(f"{len(cells)} cells on {len(places)} devices or tags", len(cells))
        crew = Scheduler(scheduler, measuring.wait_s) if scheduler else Devices(places, measuring.wait_s)
        found = run_lab(cells, crew, how, told=told)
    records = [record for _, of_cell in found for record in of_cell]

    def show() -> None:
        say(lab_table(found))
        for device in dict.fromkeys(record.machine.device for record in records):
            mine = [record for record in records if record.machine.device == device]
            say("", clean_lines(device), run_table(mine), *reasons(mine))

    return Output(records, show, exit_of(records))


def _cells(places: "Sequence[Place]", scenario: "Scenario", *, is_resumed: bool) -> "Iterator[LabCell]":
    """The cells of the command line that is run, place by place.

    The key of a cell's result leaves out ``--resume`` itself; a cell that measures several runtimes in turns makes
    several records, and its own process resumes it.
    """
    from harness.measure.pipeline import key_of, state_of
    from harness.verbs.lab import LabCell

    context = click.get_current_context()
    given = context.params
    words = list(_words(context))
    models: tuple[str, ...] = given["models"] or ("",)
    for place, model in itertools.product(places, models):
        for values in itertools.product(*(given[name] for name in _OF_CELLS)):
            of_cell = dict(zip(_OF_CELLS, values, strict=True))
            typed = [
                f"{flag}={of_cell[name]}"
                for name, flag in _OF_CELLS.items()
                if of_cell[name] or name != "thread_counts"
            ]
            line = [*words, *typed, *(["--", model] if model else [])]
            path = as_path(model) if model else None
            state = state_of(path) if path else ""
            key = "" if "," in given["runtime"] else key_of("lab", place.name, line, state)
            if is_resumed:
                line = ["--resume", *line]
            asked = {"model": model, "quant": given["quant"]}
            yield LabCell(
                place, tuple(line), scenario.replace(depth_tokens=of_cell["depth_tokens"]), asked, key
            )


def _words(context: click.Context) -> Iterator[str]:
    """The options that were typed and that each cell takes over, as ``--flag=value``."""
    given, _, _ = context.command.make_parser(context).parse_args(list(context.meta["words"][1:]))
    for parameter in context.command.params:
        if (
            parameter.name not in given
            or parameter.name in _OF_THE_LAB
            or isinstance(parameter, click.Argument)
        ):
            continue
        flag = max(parameter.opts, key=len)
        value = given[parameter.name]
        for one in value if isinstance(value, list) else [value]:
            yield flag if one is True else f"{flag}={one}"


def lab_table(found: "Sequence[tuple[LabCell, list[Record]]]") -> str:
    """Cells by places: how fast each writes, or how it ended."""
    from harness.show.record_tables import record_title
    from harness.show.state import figures_of

    names = list(dict.fromkeys(cell.place.name for cell, _ in found))
    rows: dict[tuple[object, ...], dict[str, str]] = {}
    titles: dict[tuple[object, ...], str] = {}
    for cell, records in found:
        line = (tuple(word for word in cell.words if word != "--resume"),)
        said = []
        for record in records:
            decode = figures_of(record).get("decode")
            said.append(decode.shown if decode and record.outcome == "ok" else record.outcome)
            if line not in titles or record.model is not None:
                titles[line] = record_title(record)
        rows.setdefault(line, {})[cell.place.name] = ", ".join(said)
    body = [[titles[line], *(of.get(name, "") for name in names)] for line, of in rows.items()]
    return table("writes, tokens/s" if body else "", ("model", *names), body)
