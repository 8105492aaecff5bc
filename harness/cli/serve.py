"""``edge-harness serve``: one local process that answers a browser, other programs and agents."""

import os
import secrets
import subprocess
import sys
import threading
from ipaddress import ip_address
from typing import Annotated, Any, Final

import click
from msgspec import Meta

from harness.cli._command import verb
from harness.domain.option import Option
from harness.domain.question import Asked, Question
from harness.errors import CouldNotRunError, RefusedError, optional

_TOKEN: Final = "EDGE_HARNESS_TOKEN"  # noqa: S105 - the name of a variable
_CHECK_S: Final = 900.0


@verb
def serve(
    host: Annotated[str, Option("--host", "Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, Meta(ge=1, le=65535), Option("--port", "Port to listen on.")] = 8765,
    mcp: Annotated[
        bool, Option("--mcp", "Speak MCP on stdin and stdout, for a program that starts this one.")
    ] = False,
    allow_run: Annotated[
        bool, Option("--allow-run", "Let POST /v1/check measure models here; else nothing is run or written.")
    ] = False,
) -> None:
    """Answer in a browser, as JSON under /v1, and as tools for agents (MCP) under /mcp.

    On this machine alone.

    On another address than loopback everybody has to show the token that is printed, or the one in
    EDGE_HARNESS_TOKEN.

    Example: edge-harness serve --port 8765
    """
    with optional("starlette", "serve"):
        import uvicorn

        from harness.serve.guard import Impatient
        from harness.serve.tools import tools
        from harness.serve.web import application
    sources = _sources(allow_run=allow_run)
    if mcp:
        tools(sources).run("stdio")
        return
    token = ""
    if not _is_loopback(host):
        token = os.environ.get(_TOKEN) or secrets.token_urlsafe(24)
        click.echo(f"Open http://{host}:{port}/enter?token={token}", err=True)
    else:
        click.echo(f"Open http://{host}:{port}/", err=True)
    bounds: dict[str, Any] = {
        "timeout_keep_alive": 5,
        "h11_max_incomplete_event_size": 16_384,
        "backlog": 256,
    }
    app = application(sources, host=host, token=token)
    uvicorn.run(
        app,
        host=host,
        port=port,
        http=Impatient,
        ws="none",
        log_level="warning",
        server_header=False,
        **bounds,
    )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _sources(*, allow_run: bool) -> Any:
    """The documents of the verbs, as ``--json`` prints them."""
    from harness.app.answer import answer
    from harness.cli._output import json_document
    from harness.cli.devices import show as devices
    from harness.cli.fit import fit
    from harness.cli.history import history
    from harness.cli.models import show as models
    from harness.cli.recommend import recommend
    from harness.serve.sources import Sources

    def said(name: str, command: click.Command, *given: Any, **named: Any) -> bytes:
        assert command.callback is not None
        with click.Context(command, info_name=name):
            return json_document(command.callback(*given, **named).document, name)

    def explained(question: Question) -> bytes:
        asked = Asked(**{name: getattr(question, name) for name in Asked.__struct_fields__})
        return said("fit", fit, (question.model,), asked, (question.device,), advises=False, explained=True)

    return Sources(
        fit=lambda question: json_document(answer(question, advises=False), "fit"),
        devices=lambda name: said("devices show", devices, name or None),
        models=lambda name: said("models show", models, name or None),
        history=lambda run, limit: said("history", history, (run,) if run else (), limit=limit),
        recommend=lambda device, task: said("recommend", recommend, device, task),
        explain=explained,
        check=_checker() if allow_run else None,
    )


def _checker() -> Any:
    """Measures a model in a process of its own, one at a time."""
    alone = threading.Lock()

    def check(model: str) -> bytes:
        if not model or not alone.acquire(blocking=False):
            raise RefusedError("one model at a time: name it, and come again when the other is done")
        try:
            words = [sys.executable, "-m", "harness", "check", "--json", "--", model]
            done = subprocess.run(words, capture_output=True, timeout=_CHECK_S, check=False)
        except subprocess.TimeoutExpired:
            raise CouldNotRunError(f"{model}: not done within {_CHECK_S:.0f} s") from None
        finally:
            alone.release()
        if not done.stdout:
            raise CouldNotRunError(done.stderr.decode(errors="replace").strip().rpartition("\n")[2])
        return done.stdout

    return check
