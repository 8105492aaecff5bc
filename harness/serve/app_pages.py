"""Pages that answer a question of an address: ask, compare, what runs; the same answers as card, Markdown, CSV and JSON."""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from harness.answer.answer import Answer, answer
from harness.answer.matrix import types_and_contexts
from harness.answer.variations import variations
from harness.core.errors import HarnessError, InputError, RefusedError, UnknownNameError
from harness.core.prediction import Interval
from harness.core.question import Question
from harness.hardware.devices import device_names
from harness.models.cards import model_names
from harness.serve.sources import asked
from harness.show import ask_page, compare_page, matrix_page, sharing
from harness.show.first_screen import model_name, sentence
from harness.show.grid import types_finding
from harness.show.html import filled
from harness.show.matrix_page import Grid
from harness.show.ranking import finding
from harness.show.tiles import tiles_of

DEVICES_MAX: Final = 8
"""Answers that one page compares."""
_CELLS_MAX: Final = 96
_OPTIONS_MAX: Final = 40
"""Names that a page completes a field with."""
USUAL_MODELS: Final = (
    *("llama-3.2-3b", "qwen3-4b", "llama-3.1-8b", "gemma-3-12b", "qwen3-14b"),
    *("gpt-oss-20b", "qwen3-30b-a3b", "gemma-3-27b", "llama-3.3-70b"),
)
_QUANTS: Final = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "Q2_K")
_CONTEXTS: Final = (4096, 8192, 16384, 32768, 65536)
_USUAL_CONTEXT: Final = "8192"
_NUMBERS: Final = frozenset({"context_tokens", "users", "prompt_tokens", "new_tokens", "depth_tokens"})
_MORE: Final = (
    ("quant", "Quantisation"),
    ("kv_type", "Type of the KV cache"),
    ("program", "Program"),
    ("target_tokens_per_s", "At least, tokens/s"),
    ("beside", "Beside it in memory"),
    ("draft", "Draft model"),
)
_ASK_EXAMPLES: Final = (
    ("Does Llama 3.1 8B run on an RTX 3060 12 GB?", {"model": "llama-3.1-8b", "device": "rtx 3060 12gb"}),
    ("Does gpt-oss 20B run on a 16 GB MacBook Air M4?", {"model": "gpt-oss-20b", "device": "macbook-air-m4"}),
    ("Does Qwen3 4B run on a Raspberry Pi 5?", {"model": "qwen3-4b", "device": "raspberry-pi-5"}),
)
_COMPARE_EXAMPLE: Final = [
    ("model", "gpt-oss-20b"),
    ("device", "rtx-4090-desktop"),
    ("device", "macbook-pro-m4-pro"),
    ("device", "strix-halo"),
]


class Fault(NamedTuple):
    """A question that cannot be answered: the field, what is wrong, and links that keep the rest of it."""

    field: str
    says: str
    links: Sequence[tuple[str, str]] = ()


def _pairs(query: QueryParams) -> list[tuple[str, str]]:
    """Names and texts of an address, without what is empty; a number loses the commas that people write."""
    found = []
    for name, text in query.multi_items():
        kept = text.replace(",", "").strip() if name in _NUMBERS else text.strip()
        if kept:
            found.append((name, kept))
    return found


def _answers(pairs: Sequence[tuple[str, str]]) -> list[Answer]:
    """An answer for each device, and for each model where several are named (errors as :func:`answer`)."""
    devices = [text for name, text in pairs if name == "device"] or ["this"]
    models = [
        text.strip() for name, text in pairs if name == "model" for text in text.split(",") if text.strip()
    ]
    if len(devices) * len(models) > DEVICES_MAX:
        raise InputError(
            f"found {len(devices) * len(models)} answers, expected at most {DEVICES_MAX} at once"
        )
    rest = [(name, text) for name, text in pairs if name not in {"device", "model"}]
    return [
        answer(asked([*rest, ("model", model), ("device", device)]), advises=len(devices) * len(models) == 1)
        for model in models
        for device in devices
    ]


def _fault(error: HarnessError, path: str, pairs: Sequence[tuple[str, str]]) -> Fault:
    """What the page says of an error; of an unknown name the nearest ones, each with the rest of the question."""
    if not isinstance(error, UnknownNameError) or error.kind not in {"model", "device"}:
        return Fault("", str(error))
    said = str(error).partition(" Did you mean ")[0].partition(" List them with")[0]
    links = []
    for name in error.close:
        kept = [(key, text) for key, text in pairs if key != error.kind]
        links.append((name, f"{path}?{urlencode([*kept, (error.kind, name)])}"))
    return Fault(error.kind, said[:1].upper() + said[1:], links)


def _values(request: Request, title: str) -> dict[str, Any]:
    """What every page's template needs."""
    pairs = _pairs(request.query_params)
    given = {"model": "", "device": "", "context_tokens": "4096", "users": "1", **dict(pairs)}
    return {
        "title": title,
        "here": request.url.path,
        "given": given,
        "models": _near(model_names(), given["model"]),
        "known": _near(device_names(), given["device"]),
        "fault": None,
        "answered": False,
        "query": urlencode(pairs),
        "link": f"{request.url.path}?{urlencode(pairs)}",
        "api": "fit",
        "examples": (),
    }


def _near(names: Sequence[str], typed: str) -> list[str]:
    """At most forty names that hold what was typed, then those that begin the list."""
    held = [name for name in names if typed.lower()[:4] in name]
    return list(dict.fromkeys([*held, *names]))[:_OPTIONS_MAX]


def _page(template: str, values: dict[str, Any], status: int = 200) -> Response:
    return HTMLResponse(filled(template, values, form_action="'self'"), status)


def ask(request: Request) -> Response:
    """The question as a sentence, and its answer; several devices go to the page that compares."""
    pairs = _pairs(request.query_params)
    values = _values(request, "Does it run?")
    values |= {"more": _MORE, "is_special": any(name in dict(pairs) for name, _ in _MORE), "read_as": ""}
    if len([1 for name, _ in pairs if name == "device"]) > 1:
        return compare(request)
    if "model" not in values["query"]:
        values["examples"] = [(text, f"/?{urlencode(fields)}") for text, fields in _ASK_EXAMPLES]
        return _page("ask.html.j2", values)
    try:
        (one,) = _answers(pairs)
    except HarnessError as error:
        return _page("ask.html.j2", values | {"fault": _fault(error, "/", pairs)}, _status(error))
    return _page("ask.html.j2", values | _asked_values(one))


def _asked_values(one: Answer) -> dict[str, Any]:
    changes = variations(one)
    found = [
        ask_page.changes_section(one, changes),
        ask_page.machines_section(one, ask_page.on_machines(one.question)),
    ]
    read_as = f"Read as {model_name(one)} in {one.quant} on {one.device.title}"
    if one.scenario.program:
        read_as += f", by {one.scenario.program}"
    if one.scenario.api:
        read_as += f" with {one.scenario.api.upper()}"
    if one.notes:
        read_as += f". Assumed: {'; '.join(note.rstrip('.') for note in one.notes)}"
    return {
        "title": sentence(one),
        "answered": True,
        "read_as": f"{read_as}.",
        "line": ask_page.headline(one),
        "note": ask_page.note(one, changes),
        "tiles": tiles_of(one) if one.runs else (),
        "memory": ask_page.memory_section(one) if one.runs else None,
        "commands": one.commands[: 2 * int(one.runs)],
        "give_back": f"edge-harness learn --device '{one.question.device}' --line '{one.question.model} {one.quant} PROMPT WRITE'",
        "sections": [section for section in found if section],
        "markdown": sharing.markdown([one]),
    }


def compare(request: Request) -> Response:
    """Several answers on one axis, with the winner in the first line where it is sure."""
    pairs = _pairs(request.query_params)
    values = _values(request, "Which one?") | {"here": "/compare", "api": "compare"}
    devices = [text for name, text in pairs if name == "device"]
    values["devices"] = [*devices, *[""] * (DEVICES_MAX - len(devices))][: max(len(devices) + 1, 2)]
    if "model" not in values["query"]:
        values["examples"] = [("gpt-oss 20B on three machines", f"/compare?{urlencode(_COMPARE_EXAMPLE)}")]
        return _page("compare.html.j2", values)
    try:
        answers = _answers(pairs)
    except HarnessError as error:
        return _page("compare.html.j2", values | {"fault": _fault(error, "/compare", pairs)}, _status(error))
    values |= {
        "title": finding(compare_page.standings(answers)),
        "answered": True,
        "line": compare_page.headline(answers),
        "note": compare_page.note(answers),
        "sections": [compare_page.speeds_section(answers), compare_page.figures_section(answers)],
        "markdown": sharing.markdown(answers),
    }
    return _page("compare.html.j2", values)


def matrix(request: Request) -> Response:
    """Models by devices; of one model on one device its quantisations by contexts."""
    pairs = _pairs(request.query_params)
    values = _values(request, "What runs where?") | {"finding": "", "sections": (), "largest": ()}
    values["given"] = {"model": "", "device": "", "context_tokens": _USUAL_CONTEXT, **dict(pairs)}
    try:
        key, grid = grid_of(pairs)
    except HarnessError as error:
        return _page("matrix.html.j2", values | {"fault": _fault(error, "/matrix", pairs)}, _status(error))
    lead = (
        "Fewer bits downwards, more context to the right."
        if key == "types"
        else "Rows by size, columns by speed."
    )
    found = matrix_page.grid_finding(grid)
    if key == "types":
        found = types_finding([(title, row) for title, _, row in grid.rows])
    titles = [title for title, _ in grid.columns]
    values |= {
        "title": found,
        "finding": found,
        "sections": [
            matrix_page.grid_section(key, grid, "All pairs", lead, "model" if key == "pairs" else "type")
        ],
        "largest": list(zip(titles, matrix_page.largest_per_column(grid), strict=True)),
    }
    return _page("matrix.html.j2", values)


def grid_of(pairs: Sequence[tuple[str, str]]) -> tuple[str, Grid]:
    """The answers of a matrix: ``pairs`` of models and devices, or ``types`` and contexts of one of each.

    Raises:
        InputError: There are more cells than a page has room for.
        UnknownNameError: No such model or device.
    """
    fields = dict(pairs)
    models = [text.strip() for text in fields.get("model", "").split(",") if text.strip()] or list(
        USUAL_MODELS
    )
    own = [machine for machine in ask_page.usual_machines() if machine.in_matrix]
    named = [text.strip() for text in fields.get("device", "").split(",") if text.strip()]
    devices = named or [machine.device for machine in own]
    details = {machine.device: (machine.title, machine.detail) for machine in own}
    if len(models) * len(devices) > _CELLS_MAX:
        raise InputError(f"found {len(models) * len(devices)} pairs, expected at most {_CELLS_MAX}")
    rest = [
        (name, text) for name, text in pairs if name not in {"model", "device", "context_tokens", "matrix"}
    ]
    if len(models) == 1 and len(devices) == 1:
        return "types", _types_grid(models[0], devices[0], rest)
    context = ("context_tokens", fields.get("context_tokens", _USUAL_CONTEXT))
    found = {
        (model, device): _cell(asked([*rest, context, ("model", model), ("device", device)]))
        for model in models
        for device in devices
    }

    def speed(device: str) -> float:
        speeds = sorted(_speed(found[model, device]) for model in models)
        return speeds[len(speeds) // 2]

    def size(model: str) -> float:
        return max(
            (one.prediction.memory.peak_bytes.mid for device in devices if (one := found[model, device])),
            default=0.0,
        )

    devices.sort(key=speed)
    models.sort(key=size)
    columns = [details.get(device) or (_title(found, device=device), "") for device in devices]
    rows = [
        (_title(found, model=model), "", [found[model, device] for device in devices]) for model in models
    ]
    return "pairs", Grid(columns, rows)


def _title(found: dict[tuple[str, str], Answer | None], *, model: str = "", device: str = "") -> str:
    for (one_model, one_device), one in found.items():
        if one is not None and model in {"", one_model} and device in {"", one_device}:
            return model_name(one) if model else one.device.title
    return model or device


def _types_grid(model: str, device: str, rest: Sequence[tuple[str, str]]) -> Grid:
    """Quantisations down, contexts across; contexts beyond the model's own window are left out."""
    kept = [(name, text) for name, text in rest if name != "quant"]
    question: Question = asked([*kept, ("model", model), ("device", device)])
    rows = []
    for quant, cells in types_and_contexts(question, _QUANTS, _CONTEXTS):
        loss = next((one.perplexity_percent.get(quant) for one in cells if one), None)
        rows.append((quant, f"loses {loss:.2g} %" if loss is not None else "", cells))
    return Grid([(f"{context:,}", "tokens of context") for context in _CONTEXTS], rows)


def _cell(question: Question) -> Answer | None:
    try:
        return answer(question, advises=False)
    except UnknownNameError:
        raise
    except (RefusedError, InputError):
        return None


def _speed(one: Answer | None) -> float:
    return one.prediction.speed.decode_tokens_per_s.mid if one and one.runs else 0.0


def _status(error: HarnessError) -> int:
    return 404 if isinstance(error, UnknownNameError) else 400


def _of_question(write: Callable[[list[Answer]], Response]) -> Callable[[Request], Response]:
    """A handler that answers the question of the address and writes the answers in one form."""

    def handler(request: Request) -> Response:
        return write(_answers(_pairs(request.query_params)))

    return handler


card = _of_question(lambda answers: Response(sharing.card_svg(answers), media_type="image/svg+xml"))
markdown = _of_question(
    lambda answers: PlainTextResponse(sharing.markdown(answers), media_type="text/markdown")
)


def table(request: Request) -> Response:
    """The answers of a question, or of a matrix, as CSV."""
    pairs = _pairs(request.query_params)
    if "matrix" in dict(pairs):
        _, grid = grid_of(pairs)
        answers = [one for _, _, row in grid.rows for one in row if one]
    else:
        answers = _answers(pairs)
    return PlainTextResponse(sharing.csv_rows(answers), media_type="text/csv")


def compared(request: Request) -> Response:
    """The answers with rank, finding and the sentence of each, as JSON."""
    answers = _answers(_pairs(request.query_params))
    by_name = compare_page.named(answers)
    found = compare_page.standings(answers)
    rows = []
    for one in found:
        fields = {"name": one.name, "rank": one.rank, "sentence": sentence(by_name[one.name])}
        rows.append(fields | {"decode_tokens_per_s": _interval(one.speed)})
    return JSONResponse({"finding": finding(found), "rows": rows})


def _interval(speed: Interval | None) -> dict[str, float] | None:
    return None if speed is None else {"mid": speed.mid, "low": speed.low, "high": speed.high}


def cells(request: Request) -> Response:
    """The cells of a matrix, as JSON: row, column, verdict, speed and memory of each."""
    _, grid = grid_of(_pairs(request.query_params))
    found = []
    for row, _, answers in grid.rows:
        for (column, _), one in zip(grid.columns, answers, strict=True):
            fields: dict[str, Any] = {"row": row, "column": column, "sentence": None}
            if one is not None:
                speed = one.prediction.speed.decode_tokens_per_s if one.runs else None
                verdict = one.prediction.verdict
                fields |= {
                    "sentence": sentence(one),
                    "verdict": verdict.word,
                    "has_room": one.best.has_room,
                    "decode_tokens_per_s": _interval(speed),
                    "needed_bytes": verdict.needed_bytes,
                    "available_bytes": verdict.available_bytes,
                }
            found.append(fields)
    return JSONResponse({"finding": matrix_page.grid_finding(grid), "cells": found})
