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
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from harness import __version__
from harness.answer.answer import Answer
from harness.core.errors import HarnessError, UnknownNameError
from harness.core.printable import clean
from harness.core.question import Question
from harness.core.record import Record
from harness.gates.evaluate import evaluate
from harness.gates.propose import propose
from harness.measure.pipeline import open_history
from harness.serve import app_pages
from harness.serve.agent_tools import tools
from harness.serve.guard import COOKIE, Guard, is_same
from harness.serve.sources import Sources, asked, history_words, name_only, written
from harness.show import drawing, words
from harness.show.html import filled, render
from harness.show.pages import page_of
from harness.show.panels import Panel
from harness.show.state import figures_of

HISTORY_MAX: Final = 200


def application(sources: Sources, *, host: str, token: str) -> Guard:
    """The whole server, behind its guard; without a token it answers on loopback alone."""
    web = Web(sources, token)
    server = tools(sources)
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
        Route("/v1/compare", _told(app_pages.compared)),
        Route("/v1/matrix", _told(app_pages.cells)),
        Route("/v1/fit", web.fit, methods=["GET", "POST"]),
        Route("/v1/devices", _told(partial(web.document, "device"))),
        Route("/v1/models", _told(partial(web.document, "model"))),
        Route("/v1/history", _told(web.runs)),
    ]
    return Guard(Starlette(routes=[*routes, *agents.routes], lifespan=lifespan), host=host, token=token)


def _told(function: Callable[[Request], Response]) -> Callable[[Request], Any]:
    """A handler in a thread; what a user can act on is answered in its words."""

    async def handler(request: Request) -> Response:
        try:
            return await run_in_threadpool(function, request)
        except UnknownNameError as error:
            return PlainTextResponse(f"{error}\n", 404)
        except (HarnessError, click.UsageError) as error:
            return PlainTextResponse(f"{error}\n", 400)

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

    async def fit(self, request: Request) -> Response:
        """The answer to a question, of an address or of a document."""
        body = await request.body()

        def answered(_request: Request) -> Response:
            if request.method == "POST":
                question = written(body)
            else:
                question = asked(request.query_params.multi_items())
            return _json(self.sources.fit(question))

        response: Response = await _told(answered)(request)
        return response

    def runs(self, request: Request) -> Response:
        """The newest runs, or one in full."""
        asked_for = request.query_params
        words = history_words(asked_for.get("run", ""), asked_for.get("limit", 20))
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
        "responses": {"200": typed("Answer")},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "edge-harness", "version": __version__},
        "paths": {
            "/v1/fit": {"get": fit | {"parameters": query}, "post": fit | {"requestBody": typed("Question")}}
        },
        "components": {"schemas": schemas},
    }
