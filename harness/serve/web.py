"""The application: a page that asks and answers, and the same answers as JSON."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from html import escape
from typing import Any, Final

import click
import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from harness import __version__
from harness.answer.answer import Answer
from harness.answer.contract import Past, schema_of
from harness.core.errors import HarnessError, UnknownNameError
from harness.core.printable import clean
from harness.core.question import Question
from harness.core.record import Record
from harness.gates.evaluate import evaluate
from harness.gates.propose import propose
from harness.measure.pipeline import open_history
from harness.serve import app_pages
from harness.serve.agent_tools import tools
from harness.serve.answers import DOORS
from harness.serve.guard import COOKIE, Guard, is_same
from harness.serve.sources import Sources, asked, history_words, name_only, written
from harness.show import drawing, words
from harness.show.html import filled, render
from harness.show.output import json_document
from harness.show.pages import page_of
from harness.show.panels import Panel
from harness.show.state import figures_of

HISTORY_MAX: Final = 200


def application(sources: Sources, *, host: str, token: str) -> Guard:
    """The whole server, behind its guard; without a token it answers on loopback alone."""
    web = Web(sources, token)
    server = tools()
    agents = server.streamable_http_app(json_response=True, stateless_http=True, host=host)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with server.session_manager.run():
            yield

    routes = [
        Route("/", _told(app_pages.ask)),
        Route("/compare", _told(app_pages.compare)),
        Route("/matrix", _told(app_pages.matrix)),
        Route("/card.svg", _told(app_pages.card)),
        Route("/answer.md", _told(app_pages.markdown)),
        Route("/answer.csv", _told(app_pages.table)),
        Route("/history", _told(web.history)),
        Route("/runs/{run}", _told(web.run)),
        Route("/gate", _told(web.gate)),
        Route("/enter", _told(web.enter)),
        Route("/openapi.json", _told(lambda _request: JSONResponse(openapi()))),
        Route("/v1/compare", _told(app_pages.compared), methods=["GET"]),
        Route("/v1/compare", partial(_through, "compare", sources), methods=["POST"]),
        Route("/v1/matrix", _told(app_pages.cells)),
        *(Route(f"/v1/{door}", partial(_through, door, sources), methods=["GET", "POST"]) for door in _DOORS),
        Route("/v1/devices", _told(partial(web.document, "device"))),
        Route("/v1/models", _told(partial(web.document, "model"))),
        Route("/v1/history", _told(web.runs)),
    ]
    app = Starlette(
        routes=[*routes, *agents.routes], lifespan=lifespan, exception_handlers={HTTPException: _no_such}
    )
    return Guard(app, host=host, token=token)


_DOORS: Final = ("fit", "recommend", "explain")
_BRIEF: Final = "brief"
"""Asks for the words of the terminal and a few fields, in place of the whole document."""


def refused(request: Request, says: str, status: int) -> Response:
    """What is wrong, in one sentence: as JSON where a program asks, as text for people."""
    if request.url.path.startswith("/v1"):
        return JSONResponse({"error": says}, status)
    return PlainTextResponse(f"{says}\n", status)


async def _no_such(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return refused(request, f"{request.method} {request.url.path[:80]}: {error.detail}", error.status_code)


async def _through(door: str, sources: Sources, request: Request) -> Response:
    """The answer of a door to a request, of an address or of a document."""
    body = await request.body()

    def answered(_request: Request) -> Response:
        kind, answers = DOORS[door]
        pairs = request.query_params.multi_items()
        is_brief = any(name == _BRIEF and text not in {"", "0", "false"} for name, text in pairs)
        pairs = [pair for pair in pairs if pair[0] != _BRIEF]
        asked_for = written(body, kind) if request.method == "POST" else asked(pairs, kind)
        if door == "fit" and not is_brief:
            assert isinstance(asked_for, Question)
            return _json(sources.fit(asked_for))
        told = answers(asked_for)
        if is_brief:
            return JSONResponse({"words": told.words} | told.fields)
        return _json(json_document(told.whole(), door))

    response: Response = await _told(answered)(request)
    return response


def _told(function: Callable[[Request], Response]) -> Callable[[Request], Any]:
    """A handler in a thread; what a user can act on is answered in its words."""

    async def handler(request: Request) -> Response:
        try:
            return await run_in_threadpool(function, request)
        except UnknownNameError as error:
            return refused(request, str(error), 404)
        except (HarnessError, click.UsageError) as error:
            return refused(request, str(error), 400)

    return handler


def _json(document: bytes) -> Response:
    return Response(document, media_type="application/json")


class Web:
    """What each address answers."""

    def __init__(self, sources: Sources, token: str) -> None:
        self.sources = sources
        self.token = token

    def document(self, kind: str, request: Request) -> Response:
        """The document of one model or device, or of all."""
        name = name_only(request.query_params.get(kind, ""))
        return _json(self.sources.said(f"{kind}s show", "--", *[name] * bool(name)))

    def runs(self, request: Request) -> Response:
        """The newest runs, or one in full."""
        past = asked(request.query_params.multi_items(), Past)
        words = history_words(past.run, past.limit)
        return _json(self.sources.now("history", *words))

    def history(self, _request: Request) -> Response:
        """The newest runs, each with a link to its page; two of them can be judged."""
        past = open_history()
        if past.path.exists():
            records = list(past.records(limit=HISTORY_MAX))
        else:
            records = []
        rows = []
        for record in records:
            when = words.short_date(record.created)
            name = f"{words.model_words(record)} {clean(record.quant, 30)}"
            speed = figures_of(record)["decode"]
            word = speed.word if record.outcome == "ok" else record.outcome
            first, second = (_choice(side, record.run_id, f"{name}, {when}") for side in ("run", "baseline"))
            link = drawing.Drawing(f'<a href="/runs/{record.run_id}">{when}</a>')
            kind = clean(record.workload, 30)
            rows.append((first, second, link, name, kind, drawing.cell(speed.number, "n"), word))
        heads = ("first", "second", "when, UTC", "model", "kind", drawing.cell("tokens/s", "n"), "which is")
        values = {
            "title": "History",
            "here": "/history",
            "fault": None,
            "api": "history",
            "runs": Panel("", columns=heads, rows=rows),
        }
        return HTMLResponse(filled("history.html.j2", values, form_action="'self'"))

    def run(self, request: Request) -> Response:
        """The page of one run."""
        return HTMLResponse(render(page_of([_record(request.path_params["run"])])))

    def gate(self, request: Request) -> Response:
        """The page of a run that is held to another one."""
        after, before = (_record(request.query_params.get(name, "")) for name in ("run", "baseline"))
        budgets = [proposal.budget for proposal in propose([before], "regression")]
        if not budgets or after.run_id == before.run_id:
            return PlainTextResponse(
                "nothing to compare: name two runs, the second one that ended well\n", 400
            )
        judged = evaluate(budgets, [after], baseline=[before])
        return HTMLResponse(render(page_of([after], judgements=judged)))

    def enter(self, request: Request) -> Response:
        """Keep the token of the address in a cookie of this browser."""
        shown = request.query_params.get("token", "")
        if not self.token or not is_same(shown, self.token):
            return PlainTextResponse("token: another one is expected", 401)
        response = RedirectResponse("/", 303)
        response.set_cookie(COOKIE, shown, httponly=True, samesite="strict")
        return response


def _choice(side: str, run: str, says: str) -> drawing.Drawing:
    """A button that names a run as the one that is judged, or as its baseline."""
    return drawing.Drawing(
        f'<input type="radio" name="{side}" value="{run}" aria-label="{side}: {escape(says)}">'
    )


def _record(run: str) -> Record:
    past = open_history()
    if not run or not past.path.exists():
        raise UnknownNameError("run", run[:80], ())
    return past.get(name_only(run))


def openapi() -> dict[str, Any]:
    """The description of the question and its answer, made from the types themselves."""
    _, schemas = msgspec.json.schema_components(
        (Question, Answer), ref_template="#/components/schemas/{name}"
    )
    question = schemas["Question"]
    query = []
    for name, schema in question["properties"].items():
        query.append(
            {"name": name, "in": "query", "required": name in question["required"], "schema": schema}
        )

    def typed(name: str) -> dict[str, Any]:
        schema = {"$ref": f"#/components/schemas/{name}"}
        return {"description": "", "content": {"application/json": {"schema": schema}}}

    fit = {
        "summary": "Whether a model fits on a device, and how fast it runs",
        "responses": {"200": typed("Answer"), "400": _FAULT, "404": _FAULT},
    }
    paths = {
        "/v1/fit": {"get": fit | {"parameters": query}, "post": fit | {"requestBody": typed("Question")}}
    }
    for door in ("recommend", "compare", "explain"):
        kind, answers = DOORS[door]
        body = {"content": {"application/json": {"schema": schema_of(kind)}}}
        summary = " ".join((answers.__doc__ or "").split())
        answer = {"200": {"description": summary}, "400": _FAULT, "404": _FAULT}
        paths[f"/v1/{door}"] = {"post": {"summary": summary, "requestBody": body, "responses": answer}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "edge-harness", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas},
    }


_FAULT: Final = {
    "description": "What is wrong, in one sentence",
    "content": {
        "application/json": {"schema": {"type": "object", "properties": {"error": {"type": "string"}}}}
    },
}
