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
from harness.answer.answer import Answer, answer
from harness.core.errors import HarnessError, UnknownNameError
from harness.core.printable import clean
from harness.core.question import Question
from harness.core.record import Record
from harness.core.units import format_number
from harness.gates.evaluate import evaluate
from harness.gates.propose import propose
from harness.hardware.devices import device_names
from harness.measure.pipeline import open_history
from harness.models.cards import model_names
from harness.serve.agent_tools import tools
from harness.serve.guard import COOKIE, Guard, is_same
from harness.serve.sources import Sources, asked, history_words, name_only, written
from harness.show import drawing, words
from harness.show.first_screen import UNSURE_RATIO, first_screen, sentence
from harness.show.html import filled, render
from harness.show.pages import page_of
from harness.show.panels import Panel
from harness.show.state import figures_of

HISTORY_MAX: Final = 200
_DEVICES_MAX: Final = 4
"""Devices that one page compares."""


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
        Route("/", _told(web.ask)),
        Route("/history", _told(web.history)),
        Route("/runs/{run}", _told(web.run)),
        Route("/gate", _told(web.gate)),
        Route("/enter", _told(web.enter)),
        Route("/openapi.json", _told(lambda _request: JSONResponse(openapi()))),
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

    def ask(self, request: Request) -> Response:
        """The form, and below it the answer for each device that was named."""
        given = dict(request.query_params)
        devices = [text for text in request.query_params.getlist("device") if text][:_DEVICES_MAX]
        pairs = [(name, text) for name, text in request.query_params.multi_items() if name != "device"]
        answers: list[Answer] = []
        fault = ""
        if given.get("model"):
            try:
                answers = [
                    answer(asked([*pairs, ("device", device or "this")]), advises=False) for device in devices
                ]
            except HarnessError as error:
                fault = str(error)
        speeds = [one.prediction.speed.decode_tokens_per_s for one in answers if one.runs]
        axis = drawing.Axis.of_factors([end for speed in speeds for end in (speed.low, speed.high)])
        values = {
            "title": "Ask",
            "given": given,
            "devices": [*devices, "", ""][:_DEVICES_MAX],
            "fault": fault,
            "answers": [_shown(one, axis) for one in answers],
            "axis": drawing.factor_axis(axis),
            "models": model_names(),
            "known": device_names(),
        }
        return HTMLResponse(filled("serve.html.j2", values, form_action="'self'"))

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
        values = {"title": "History", "runs": Panel("", columns=heads, rows=rows)}
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


def _shown(one: Answer, axis: drawing.Axis) -> dict[str, Any]:
    """What the page shows of an answer: the first screen, its sentence and its command apart."""
    speed = one.prediction.speed.decode_tokens_per_s
    lines = [line for line in first_screen(one) if line.strip() not in one.commands]
    _, _, screen = "\n".join(lines).partition("\n\n")
    shown = {
        "sentence": sentence(one),
        "lines": screen.replace("\n\n\n", "\n\n"),
        "commands": one.commands[: int(one.runs)],
        "speed": "",
        "picture": drawing.picture("does not run", 30, []),
    }
    if one.runs:
        ends = " to ".join(format_number(end, 2) for end in (speed.low, speed.high))
        shown["picture"] = drawing.picture(f"{ends} tokens/s", 30, [drawing.band(axis, speed, 15)])
    if one.runs and speed.high < UNSURE_RATIO * speed.low:
        shown["speed"] = format_number(speed.mid, 2)
    return shown


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
