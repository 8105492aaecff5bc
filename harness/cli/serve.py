"""``edge-harness serve``: one local process that answers a browser, other programs and agents."""

import os
import secrets
from contextlib import suppress
from ipaddress import ip_address
from typing import Annotated, Final

import click
from msgspec import Meta

from harness.cli.command import Verb, verb
from harness.core.errors import optional
from harness.core.option import Option
from harness.core.question import Question

_TOKEN: Final = "EDGE_HARNESS_TOKEN"  # noqa: S105 - the name of a variable


@verb
def serve(
    host: Annotated[str, Option("--host", "Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, Meta(ge=1, le=65535), Option("--port", "Port to listen on.")] = 8765,
    mcp: Annotated[
        bool, Option("--mcp", "Speak MCP on stdin and stdout, for a program that starts this one.")
    ] = False,
) -> None:
    """Answer in a browser, as JSON under /v1, and as tools for agents (MCP) under /mcp.

    It answers this machine alone, and measures and writes nothing. On another address than loopback everybody
    has to show the token that is printed, or the one in EDGE_HARNESS_TOKEN.

    Example: edge-harness serve --port 8765
    """
    with optional("starlette", "serve"):
        import uvicorn

        from harness.serve.agent_tools import tools
        from harness.serve.guard import Impatient
        from harness.serve.sources import sources_of
        from harness.serve.web import application
    sources = sources_of(_fit, _said)
    if mcp:
        tools().run("stdio")
        return
    is_loopback = host == "localhost"
    with suppress(ValueError):
        is_loopback = is_loopback or ip_address(host).is_loopback
    token = ""
    entry = ""
    if not is_loopback:
        token = os.environ.get(_TOKEN) or secrets.token_urlsafe(24)
        entry = f"enter?token={token}"
    click.echo(f"Open http://{host}:{port}/{entry}", err=True)
    uvicorn.run(
        application(sources, host=host, token=token),
        host=host,
        port=port,
        http=Impatient,
        ws="none",
        log_level="warning",
        server_header=False,
        timeout_keep_alive=5,
        h11_max_incomplete_event_size=16_384,
        backlog=256,
    )


def _fit(question: Question) -> bytes:
    """The document of ``fit --no-advice --json`` for a question."""
    from harness.answer.answer import answer
    from harness.show.output import json_document

    return json_document(answer(question, advises=False), "fit")


def _said(path: str, *words: str) -> bytes:
    """The document that a verb prints with ``--json`` for these words."""
    from harness.cli import cli
    from harness.cli.command import HANDED
    from harness.show.output import json_document

    command: click.Command | None = cli
    for name in path.split():
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(cli), name)
    assert isinstance(command, Verb)
    with command.make_context(path, list(words)) as context:
        context.meta[HANDED] = True
        return json_document(command.invoke(context).document, path)
