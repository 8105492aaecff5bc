"""``edge-harness engines``: builds of llama.cpp that fit this machine: shown, fetched, removed."""

from typing import TYPE_CHECKING

import click

from harness.cli.command import Verbs
from harness.core.question import Api
from harness.core.units import format_bytes
from harness.show.output import Output, say, table

if TYPE_CHECKING:
    from harness.measure.engine_devices import Engine


@click.group(cls=Verbs)
def engines() -> None:
    """Show, fetch and remove builds of llama.cpp that use what this machine has."""


@engines.command()
def show() -> Output:
    """Show the builds for this machine, the engine that runs, and what of the machine it leaves unused.

    Example: edge-harness engines show
    """
    from harness.verbs.engines import show as examine

    found = examine()
    rows = []
    for build in found.builds:
        is_pulled = "yes" if build == found.pulled else "no"
        rows.append((build.api, build.source, build.place, format_bytes(build.size_bytes), is_pulled))
    lines = [table("builds for this machine", ("api", "source", "archive", "size", "pulled"), rows)]
    lines.append(_line(found.in_use) if found.in_use else found.fault or "no engine is installed")
    if found.lack:
        lines.append(f"{found.lack.line}: edge-harness engines pull")
    return Output(found, lambda: say(*lines))


@engines.command()
def pull(api: Api = "") -> Output:
    """Fetch a build for this machine into the cache, verified; runs use it from then on, until it is removed.

    From llama.cpp's releases, or by the npm client where they cannot be had. A build for a GPU runs on the
    CPU too.

    Example: edge-harness engines pull --api vulkan
    """
    from harness.show.progress_line import RunProgress
    from harness.verbs.engines import pull as fetch

    with RunProgress() as progress:
        build, engine = fetch(api, progress)
    document = {"build": build, "engine": engine}
    return Output(
        document, lambda: say(f"fetched {build.place} ({format_bytes(build.size_bytes)})", _line(engine))
    )


@engines.command()
def remove() -> Output:
    """Delete the engine that was pulled: what a package brings runs again.

    Example: edge-harness engines remove
    """
    from harness.runtimes.llamacpp.builds import remove as delete

    removed = delete()
    return Output({"removed": removed}, lambda: say("removed" if removed else "no engine was pulled"))


def _line(engine: "Engine") -> str:
    chosen = ""
    if engine.variant:
        chosen = f", variant {engine.variant}"
    return f"in use: {engine.brought_by}, version {engine.version}{chosen}: {' '.join(engine.isa)}"
