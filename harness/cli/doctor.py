"""``edge-harness doctor``: what works here, and what to do where something does not."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from harness.cli.command import verb
from harness.core.errors import Exit
from harness.core.option import Option
from harness.core.units import counted
from harness.show.output import Output, say, screen_width, table

if TYPE_CHECKING:
    from harness.verbs.doctor import Finding


@verb
def doctor(
    everything: Annotated[bool, Option("--all", "List all that was looked at, what is well too.")] = False,
) -> Output:
    """Check folders, engines, optional packages, limits and sensors.

    The exit status is 0 if all of them are usable, and 4 if something is broken.

    Example: edge-harness doctor
    """
    from harness.verbs.doctor import examine

    found = examine()
    status = Exit.OK
    if any(finding.state == "broken" for finding in found):
        status = Exit.COULD_NOT_RUN
    rows = [(finding.name, finding.state, finding.detail) for finding in found]
    if everything:
        return Output(found, lambda: say(table("", ("", "state", "detail"), rows)), status)
    return Output(found, lambda: _show(found), status)


def _show(found: "Sequence[Finding]") -> None:
    """One sentence, what could be better, and the next command where there is one."""
    width = min(screen_width(), 80)
    say(*textwrap.wrap(_sentence(found), width))
    lacking = [finding for finding in found if finding.state == "missing"]
    better = [finding for finding in lacking if finding.kind != "engine" and finding.brief]
    if better:
        say("\n  Could be better")
    for finding in better:
        indent = f"    {finding.name:<18}  "
        say(textwrap.fill(finding.brief, width, initial_indent=indent, subsequent_indent=" " * 24))
    engines = [finding for finding in lacking if finding.kind == "engine"]
    say(*(f"\n  {engine.brief}\n" for engine in engines if engine.brief))
    unused = sum(not engine.brief for engine in engines)
    if unused:
        say(f"  Not installed, and not needed: {counted(unused, 'other engine')} (--all lists all)")


def _sentence(found: "Sequence[Finding]") -> str:
    """Whether one can begin: ``Ready``, ``Ready, but`` or ``Not ready``, and what of."""
    broken = [f.brief or f.detail for f in found if f.state == "broken"]
    if broken:
        return f"Not ready: {'; '.join(broken)}."
    runtimes = [f.name for f in found if f.name.startswith("runtime ") and f.state == "ok"]
    engines = sorted(name.removeprefix("runtime ") for name in runtimes if name != "runtime server")
    if not engines:
        return "Not ready: no engine that runs models is installed. Predictions work: fit, recommend."
    limits = [f.brief for f in found if f.state == "limited"]
    if limits:
        return f"Ready, but {'; '.join(limits)}."
    processor = next((f.brief for f in found if f.name == "processor"), "the CPU")
    return f"Ready: models run here on {processor}, by {', '.join(engines)}."
