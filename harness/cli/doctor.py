"""``edge-harness doctor``: what works here, and what to do where something does not."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import click

from harness.cli._command import verb
from harness.cli._output import Answer, say, screen_width, table
from harness.domain.option import Option
from harness.errors import Exit
from harness.units import counted

if TYPE_CHECKING:
    from harness.app.doctor import Finding


@verb
def doctor(
    everything: Annotated[bool, Option("--all", "List all that was looked at, what is well too.")] = False,
) -> Answer:
    """Check folders, engines, optional packages, limits and sensors.

    Exit status: 0 usable, 4 something is broken.

    Example: edge-harness doctor
    """
    from harness.app.doctor import examine

    found = examine()
    if any(f.state == "broken" for f in found):
        status = Exit.COULD_NOT_RUN
    else:
        status = Exit.OK
    rows = [(f.name, f.state, f.detail) for f in found]
    if everything:
        return Answer(found, lambda: say(table("", ("", "state", "detail"), rows)), status)
    return Answer(found, lambda: _show(found), status)


def _show(found: "Sequence[Finding]") -> None:
    """One sentence, what could be better, and the next command where there is one."""
    width = min(screen_width(), 80)
    for line in textwrap.wrap(_sentence(found), width):
        click.echo(line)
    better = [(f.name, f.brief) for f in found if f.state == "missing" and f.kind != "engine" and f.brief]
    if better:
        click.echo("\n  Could be better")
    for name, brief in better:
        shown = textwrap.wrap(brief, width - 24)
        click.echo(f"    {name:<18}  {shown[0]}")
        for line in shown[1:]:
            click.echo(" " * 24 + line)
    for finding in found:
        if finding.kind == "engine" and finding.brief and finding.state == "missing":
            click.echo(f"\n  {finding.brief}\n")
    engines = [f for f in found if f.kind == "engine" and f.state == "missing" and not f.brief]
    if engines:
        are = "are"
        if len(engines) == 1:
            are = "is"
        click.echo(
            f"  Not needed: {counted(len(engines), 'other engine')} {are} not installed (--all lists all)"
        )


def _sentence(found: "Sequence[Finding]") -> str:
    """Whether one can begin: ``Ready``, ``Ready, but`` or ``Not ready``, and what of."""
    broken = [f.brief or f.detail for f in found if f.state == "broken"]
    if broken:
        return f"Not ready: {'; '.join(broken)}."
    usable = {
        f.name.removeprefix("runtime ") for f in found if f.name.startswith("runtime ") and f.state == "ok"
    }
    engines = sorted(usable - {"server"})  # which only asks one that runs elsewhere
    if not engines:
        return "Not ready: no engine that runs models is installed. Predictions work: fit, recommend."
    limits = [f.brief for f in found if f.state == "limited"]
    if limits:
        return f"Ready, but {'; '.join(limits)}."
    *others, last = engines
    if others:
        names = f"{', '.join(others)} and {last}"
    else:
        names = last
    processor = next((f.brief for f in found if f.name == "processor"), "the CPU")
    return f"Ready: models run here by {names}, on {processor}."
