"""The languages of servers, as ``data/servers.toml`` has them: what each is known by, how it is asked, what it says.

Sources: llama.cpp tools/server/README.md (``/completion``, ``/props``, ``/tokenize``); Ollama docs/api.md
(``/api/generate``, ``/api/show``, ``/api/ps``, times in nanoseconds); LM Studio REST API v0
(``/api/v0/models``, ``/api/v0/completions`` with ``stats``); OpenAI's API reference (``/v1/completions``,
server-sent events) and what vLLM and llama-cpp-python's server add to it (``/tokenize``,
``/extras/tokenize/count``, ``ignore_eos``).
"""

import json
from collections.abc import Iterator
from pathlib import PureWindowsPath
from typing import Any, Final

from harness.core.base import Frozen
from harness.core.errors import RefusedError
from harness.core.printable import clean
from harness.core.record import ModelIdentity
from harness.core.tables import expect, expect_all, shipped_table
from harness.models.quant import mixture_in
from harness.runtimes.server.pieces import AnswerPieces, Request, ServerAnswer
from harness.runtimes.server.stream import Endpoint, Exchange, Line, ServerError

_PINGS_MAX: Final = 10_000
"""Lines of a stream that say nothing, beyond one for each piece."""
_MOST: Final = 1 << 60
"""No count and no time of anything is larger."""
_UNITS_S: Final = {"ms": 1e-3, "duration": 1e-9}
"""Units of times by the last words of their names."""


class Described(Frozen):
    """What a server says of itself and of its model; empty or 0 where it says nothing.

    ``software`` is ``llama-server ollama lmstudio vllm`` or ``openai`` for any other, ``context_tokens`` the
    longest of one request, ``vocab_count`` 0 where prompts cannot be given as ids, ``slot_count`` requests
    computed together.
    """

    software: str
    version: str = ""
    model: str = ""
    quant: str = ""
    architecture: str = ""
    parameter_count: int = 0
    size_bytes: int = 0
    context_tokens: int = 0
    vocab_count: int = 0
    slot_count: int = 0


_KEYS: Final = frozenset(
    [
        "like",
        "known_by",
        "path",
        "pages",
        "models",
        "name",
        "body",
        "described",
        "stream",
        "answer",
        "chat",
        "shown",
        "tag",
    ]
)


def read_servers() -> dict[str, dict[str, Any]]:
    """``data/servers.toml``, whose words are declared.

    Raises:
        BadDataError: A word that a row cannot have, a field that an answer has not, or a server that there is not.
    """
    path = "data/servers.toml"
    document = shipped_table(path, into=dict[str, dict[str, Any]])
    for name, row in document.items():
        expect(path, f"{name}, like", row.get("like", name), document)
        for table, known in (
            ("", _KEYS),
            ("described", Described.__struct_fields__),
            ("stream", ("piece", "count", "end")),
            ("answer", ServerAnswer.__struct_fields__),
        ):
            cells = row.get(table, {}) if table else row
            expect_all(path, f"{name}.{table}".strip("."), ((key, key) for key in cells), known)
    return document


_TABLE: Final = read_servers()


def differs(served: ModelIdentity, *, parameter_count: float, size_bytes: float, architecture: str) -> str:
    """Name what a server says of its model that cannot hold for this one; an empty text if all can."""
    if served.architecture and architecture and served.architecture != architecture:
        return f"its architecture is {served.architecture}, not {architecture}"
    for own, asked, least, most, what in (
        (served.parameter_count, parameter_count, 0.85, 1.2, "parameters"),
        (served.size_bytes, size_bytes, 0.8, 1.3, "bytes"),
    ):
        if own and asked and not least < own / asked < most:
            return f"it has {own:,} {what}, not {asked:,.0f}"
    return ""


class Dialect:
    """A row of the table, spoken with one server; ``pages`` are those that were read of it already, by their paths."""

    def __init__(self, endpoint: Endpoint, software: str, model: str, pages: dict[str, Any]) -> None:
        self.endpoint = endpoint
        self.model = model
        self._software = software
        self._pages = pages
        row = _TABLE[software]
        self._row: dict[str, Any] = _TABLE.get(row.get("like", ""), {}) | row

    def is_spoken(self) -> bool:
        """Whether the server has what this dialect is known by."""
        return all(self._at(place) is not None for place in self._row["known_by"].split())

    def _at(self, place: str) -> Any:
        """What stands at a place of one of the server's pages, which is asked for once."""
        name, _, inner = place.partition("/")
        path = self._row["pages"].get(name, name)
        if path not in self._pages:
            self._pages[path] = self.endpoint.json(path)
        page = self._pages[path]
        return _at(page, inner) if inner or not isinstance(page, dict) else page

    def describe(self) -> Described:
        """Ask the server what it is and which model it runs.

        RefusedError where it has no model of that name, or several and none was named.
        """
        row = self._row
        if self.model and ":" not in self.model:
            self.model += row.get("tag", "")
        listed = self._at(row["models"])
        models: dict[str, Any] = {}
        for model in listed if isinstance(listed, list) else ():
            if isinstance(model, dict) and model.get("type") != "embeddings":
                models[_text(model.get(row["name"]))] = model
        names = ", ".join(list(models)[:8])
        if not self.model and len(models) > 1:
            raise RefusedError(
                f"the server has {len(models)} models: choose one with --server-model: {names}"
            )
        self.model = self.model or names
        if models and self.model not in models:
            raise RefusedError(f"--server-model: found {self.model!r}, expected one of the server's: {names}")
        card = self._pages["card"] = models.get(self.model, {})
        if "shown" in row:
            self._pages["shown"] = self.endpoint.json(row["shown"], {"model": self.model})
        software = "vllm" if card.get("owned_by") == "vllm" else self._software
        facts: dict[str, Any] = {"software": software, "model": _file_name(self.model)}
        for name, places in row["described"].items():
            value = next(filter(None, (self._at(place.format_map(facts)) for place in places.split())), None)
            is_number = name.endswith(("_count", "_tokens", "_bytes"))
            facts[name] = _count(value) or 0 if is_number else _text(value)
        quant = facts.get("quant", "")
        if " " in quant:
            facts["quant"] = mixture_in(quant)
        self.described = Described(**facts)
        return self.described

    def _tokenized(self, text: str) -> dict[str, Any]:
        """What the server's tokenizer says of a text, each server by the name that it has for one."""
        body = {"model": self.model, "prompt": text, "content": text, "input": text, "add_special": True}
        for path in ("/tokenize", "/extras/tokenize/count"):
            page = self.endpoint.json(path, body)
            if isinstance(page, dict):
                return page
        return {}

    def count_tokens(self, text: str) -> int | None:
        """Tokens of ``text`` as the server's tokenizer has them; None where it has no page for that."""
        said = self._tokenized(text)
        return len(said["tokens"]) if isinstance(said.get("tokens"), list) else _count(said.get("count"))

    def token_ids(self, text: str) -> tuple[int, ...] | None:
        """Return the token ids of ``text`` by the server's tokenizer; None if it takes no prompts as ids."""
        tokens, vocab = self._tokenized(text).get("tokens"), self.described.vocab_count
        if not isinstance(tokens, list) or not all(type(one) is int and 0 <= one < vocab for one in tokens):
            return None
        return tuple(tokens)

    def body(self, request: Request) -> dict[str, Any]:
        """The JSON that asks for ``request``."""

        def filled(template: Any) -> Any:
            if isinstance(template, dict):
                return {key: filled(value) for key, value in template.items()}
            if not isinstance(template, str) or template[0] != "{":
                return template
            return self.model if template == "{model}" else getattr(request, template.strip("{}"))

        asked: dict[str, Any] = filled(self._row["body"])
        if self._row["path"] == self._row.get("chat"):
            asked["messages"] = [{"role": "user", "content": asked.pop("prompt")}]
        return asked

    def ask(self, request: Request) -> ServerAnswer:
        """One completion, streamed; ServerError where the server did wrong, or was too slow."""
        try:
            return self._asked(request)
        except ServerError as error:
            chat = self._row.get("chat", self._row["path"])
            if error.status not in {404, 405, 501} or self._row["path"] == chat:
                raise
        self._row["path"] = chat
        return self._asked(request)

    def _asked(self, request: Request) -> ServerAnswer:
        with self.endpoint.exchange(self._row["path"], self.body(request)) as sent:
            found = AnswerPieces(request.new_tokens, sent.sent_s)
            for line, data in _events(sent, found):
                if "error" in data:
                    error = data["error"]
                    said = error.get("message", error) if isinstance(error, dict) else error
                    raise found.fault(f"the server failed: {_text(said, 300)}")
                told = _file_name(_text(data.get("model"))).removesuffix(":latest")
                asked = _file_name(self.model).removesuffix(":latest")
                if told and asked and told != asked:
                    raise found.fault(f"the stream is of the model {told!r}, asked for was {asked!r}")
                self._read(line, data, found)
            return found.answer()

    def _read(self, line: Line, data: dict[str, Any], found: AnswerPieces) -> None:
        """Read one event: a piece of the answer, the server's figures of the whole answer, or both.

        Raises:
            ServerError: A figure that should be a count is no whole number.
        """
        stream = self._row["stream"]
        end, count = stream.get("end"), stream.get("count")
        piece = next(filter(None, (_at(data, place) for place in stream["piece"].split())), None)
        delta = _at(data, "choices/delta")
        if not piece and isinstance(delta, dict):  # reasoning has a name of its own with each server
            texts = [text for name, text in delta.items() if name != "role" and isinstance(text, str)]
            piece = "".join(texts)
        if piece:
            known = _count(data.get(count), count) if count else None
            found.piece(line.at_s, "" if isinstance(piece, list) else str(piece), known)
        if end and data.get(end) is not True:
            return
        found.complete |= bool(end)
        for name, places in self._row["answer"].items():
            for place in places.split():
                value = _at(data, place)
                if name.endswith("_tokens"):
                    value = _count(value, place.replace("/", "."))
                elif name.endswith("_s"):
                    value = _seconds(value, _UNITS_S.get(place.rpartition("_")[2], 1.0))
                found.tell(name, value)
        # The last tokens are no whole character: they come with the end.
        if count and found.token_count < found.told.setdefault("new_tokens", 0) <= found.wanted:
            found.piece(line.at_s, "", found.told["new_tokens"])


def _events(sent: Exchange, found: AnswerPieces) -> Iterator[tuple[Line, dict[str, Any]]]:
    """Yield the JSON objects of an answer, sent as server-sent events or one a line.

    Raises:
        ServerError: A line is neither an event nor a JSON object.
    """
    if sent.content_type == "application/json":
        raise ServerError("the server sent its answer whole: it does not stream")
    pings = 0
    for line in sent.lines():
        text = line.text.strip()
        if sent.content_type == "text/event-stream":
            name, _, text = text.partition(":")
            if name in {"", "event", "id", "retry"}:
                pings += 1
                if pings > _PINGS_MAX + 2 * len(found.counts):
                    raise found.fault(f"{pings} lines that keep a connection alive")
                continue
            text = text.strip()
            if name != "data":
                raise found.fault(f"malformed event: {line.text[:80]!r}")
            if text == "[DONE]":
                found.complete = True
                return
        if not text:
            continue
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            data = None
        if not isinstance(data, dict):
            raise found.fault(f"malformed event: no JSON object: {text[:80]!r}")
        yield line, data


def dialect_of(endpoint: Endpoint, model: str = "") -> Dialect:
    """The dialect that a server speaks, the one that tells most.

    Raises:
        ServerError: It cannot be reached, or speaks none of them.
        RefusedError: It has no such model.
    """
    pages: dict[str, Any] = {}
    for software in _TABLE:
        dialect = Dialect(endpoint, software, model, pages)
        if dialect.is_spoken():
            dialect.describe()
            return dialect
    raise ServerError(
        f"what answers at port {endpoint.port} is no server of models: it has no object at /v1/models",
        "refused",
    )


def _at(value: Any, place: str) -> Any:
    """Return the value at a place such as ``choices/text``, or None; a list is entered at its first item."""
    for name in place.split("/"):
        value = next(iter(value), None) if isinstance(value, list) else value
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _text(value: Any, most: int = 200) -> str:
    return "" if value is None else clean(str(value), most)


def _file_name(name: str) -> str:
    """A model's name; of a path on the server's machine the file alone: folders of a home are nobody's business."""
    return PureWindowsPath(name).name if name[:1] in {"/", "\\"} or name[1:3] in {":\\", ":/"} else name


def _count(value: Any, field: str = "") -> int | None:
    """A count; None where there is none, ServerError where a ``field`` must have one and has something else."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST:
        return value
    if value is not None and field:
        raise ServerError(f"malformed event: {field}: found {_text(value, 40)!r}, expected a count")
    return None


def _seconds(value: Any, unit_s: float) -> float | None:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < _MOST
    return value * unit_s if good else None
