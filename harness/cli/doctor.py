"""``edge-harness doctor``: what works here, and what to do where something does not."""

from harness.cli._command import verb
from harness.cli._output import Answer, say, table
from harness.errors import Exit


@verb
def doctor() -> Answer:
    """Check folders, engines, optional packages, limits and sensors.

    Exit status: 0 usable, 4 something is broken.
    """
    from harness.app.doctor import examine

    found = examine()
    status = Exit.COULD_NOT_RUN if any(f.state == "broken" for f in found) else Exit.OK
    rows = [(f.name, f.state, f.detail) for f in found]
    return Answer(found, lambda: say(table("", ("", "state", "detail"), rows)), status)
