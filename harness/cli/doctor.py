"""``edge-harness doctor``: what works here, and what to do where something does not."""

import click

from harness.cli._output import console, emit_json, json_option, table
from harness.errors import Exit


@click.command()
@json_option
def doctor(as_json: bool) -> int:
    """Examine folders, engines, optional packages, limits and sensors; exit 4 when something is broken."""
    from harness.app.doctor import examine

    findings = examine()
    if as_json:
        emit_json(findings)
    else:
        rows = [(f.name, f.state, f.detail) for f in findings]
        console().print(table("", ("", "state", "detail"), rows))
    return Exit.COULD_NOT_RUN if any(f.state == "broken" for f in findings) else Exit.OK


COMMAND = doctor
