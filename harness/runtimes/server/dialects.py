"""The languages of servers: how each one is recognised, asked, and what it says of itself and of its answers.

Sources: llama.cpp tools/server/README.md (``/completion``, ``/props``, ``/tokenize``); Ollama docs/api.md
(``/api/generate``, ``/api/show``, ``/api/ps``, times in nanoseconds); LM Studio REST API v0 (``/api/v0/models``,
``/api/v0/completions`` with ``stats``); OpenAI's API reference (``/v1/completions``, server-sent events) and what vLLM
and llama-cpp-python's server add to it (``/tokenize``, ``/extras/tokenize/count``, ``ignore_eos``).
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import PureWindowsPath
from typing import Any, ClassVar, Final

from harness.domain.base import Frozen, shipped_table
from harness.domain.quant import mixture_in
from harness.errors import RefusedError
from harness.printable import clean
from harness.runtimes.server.answer import Collector, Request, ServerAnswer
from harness.runtimes.server.stream import Endpoint, Exchange, Line, ServerError

_TOLD: Final = shipped_table("data/servers.toml")


class Described(Frozen):
    """What a server says of itself and of its model; empty or 0 where it says nothing.

    ``software`` is ``llama-server ollama lmstudio`` or ``openai`` for any other, ``context_tokens`` the longest of one
    request, ``vocab_count`` 0 where prompts cannot be given as ids, ``slot_count`` requests computed together.
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

    def differs(self, *, parameter_count: float, size_bytes: float, architecture: str) -> str:
        """What the server says of its model that cannot be said of this one; empty where nothing speaks against it."""
        if self.architecture and architecture and self.architecture != architecture:
            return f"its architecture is {self.architecture}, not {architecture}"
        for own, asked, least, most, what in (
            (self.parameter_count, parameter_count, 0.85, 1.2, "parameters"),
            (self.size_bytes, size_bytes, 0.8, 1.3, "bytes"),
        ):
            if own and asked and not least < own / asked < most:
                return f"it has {own:,} {what}, not {asked:,.0f}"
        return ""


class OpenAI:
    """Any server with OpenAI's completions; ``chat`` where it has only the chat form of them."""

    software: ClassVar[str] = "openai"
    path = "/v1/completions"

    def __init__(self, endpoint: Endpoint, model: str = "") -> None:
        self.endpoint, self.model, self.chat = endpoint, model, False
        self.described = self.describe()

    def describe(self) -> Described:
        """Ask the server what it is and which model it runs.

        RefusedError where it has no model of that name, or several and none was named.
        """
        card = self._choose(_rows(self.endpoint.json("/v1/models"), "data"), "id")
        told = self._described(card=card, version=self.endpoint.json("/version"))
        return told.replace(software="vllm") if card.get("owned_by") == "vllm" else told

    def _described(self, **pages: Any) -> Described:
        """What pages of the server tell, as the table has it for its kind."""
        facts: dict[str, Any] = {"software": self.software, "model": _file_name(self.model)}
        for name, places in _TOLD[self.software].items():
            if name == "answer":
                continue
            found = (_at(pages, place.format_map(facts)) for place in places.split())
            value = next((one for one in found if one), None)
            facts[name] = _count(value) or 0 if name.endswith(("_count", "_tokens", "_bytes")) else _text(value)
        return Described(**facts)

    def _choose(self, rows: list[dict[str, Any]], key: str) -> dict[str, Any]:
        """The model's own row; the only one where none was named."""
        names = [_text(r.get(key)) for r in rows]
        if self.model and names and self.model not in names:
            raise RefusedError(
                f"--server-model: found {self.model!r}, expected one of the server's: {', '.join(names[:8])}"
            )
        if not self.model and len(names) > 1:
            raise RefusedError(
                f"the server has {len(names)} models: choose one with --server-model: {', '.join(names[:8])}"
            )
        self.model = self.model or (names[0] if names else "")
        return rows[names.index(self.model)] if self.model in names else {}

    def count_tokens(self, text: str) -> int | None:
        """Tokens of ``text`` as the server's tokenizer has them; None where it has no page for that."""
        count = _count(_dict(self.endpoint.json("/tokenize", {"model": self.model, "prompt": text})).get("count"))
        if count is not None:
            return count
        return _count(_dict(self.endpoint.json("/extras/tokenize/count", {"input": text})).get("count"))

    def token_ids(self, text: str) -> tuple[int, ...] | None:
        """The tokens of ``text`` where prompts can be given as ids; None elsewhere."""
        del text
        return None

    def unload(self) -> bool:
        """Have the server drop its model from memory; False where it cannot."""
        return False

    def body(self, request: Request) -> dict[str, Any]:
        """The JSON that asks for ``request``."""
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": request.new_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            "ignore_eos": True,  # vLLM and llama.cpp go on after an end token; others leave it out
        }
        said = request.prompt
        return body | ({"messages": [{"role": "user", "content": said}]} if self.chat else {"prompt": said})

    def ask(self, request: Request) -> ServerAnswer:
        """One completion, streamed; ServerError where the server did wrong, or was too slow."""
        try:
            return self._ask(request)
        except ServerError as error:
            if self.chat or self.software != "openai" or error.status not in {404, 405, 501}:
                raise
        self.chat = True
        self.path = "/v1/chat/completions"
        return self._ask(request)

    def _ask(self, request: Request) -> ServerAnswer:
        with self.endpoint.exchange("POST", self.path, self.body(request)) as sent:
            found = Collector(request.new_tokens, sent.sent_s)
            for line, data in self.events(sent, found):
                if "error" in data:
                    error = data["error"]
                    said = error.get("message", error) if isinstance(error, dict) else error
                    raise ServerError(f"the server failed after {len(found.counts)} pieces: {_text(said, 300)}")
                self._is_same_model(data)
                self.read(line, data, found)
            return found.answer()

    def _is_same_model(self, data: dict[str, Any]) -> None:
        """Whether an event is of the model that was asked for (ServerError where it names another)."""
        told, asked = (_file_name(name).removesuffix(":latest") for name in (_text(data.get("model")), self.model))
        if told and asked and told != asked:
            raise ServerError(f"the stream is of the model {told!r}, asked for was {asked!r}")

    def events(self, sent: Exchange, found: Collector) -> Iterator[tuple[Line, dict[str, Any]]]:
        """The JSON objects of an answer: server-sent events, or one a line; ServerError where a line is neither."""
        if sent.content_type == "application/json":
            raise ServerError("the server sent its answer whole: it does not stream")
        events, pings = sent.content_type == "text/event-stream", 0
        for line in sent.lines():
            text = line.text.strip()
            if events:
                name, _, text = line.text.partition(":")
                if name.strip() in {"", "event", "id", "retry"}:
                    pings += bool(line.text.strip())
                    if pings > _PINGS_MAX + len(found.counts):
                        raise ServerError(f"{pings} lines that keep a connection alive, and {len(found.counts)} pieces")
                    continue
                text = text.strip()
                if name != "data":
                    raise ServerError(f"malformed event after {len(found.counts)} pieces: {line.text[:80]!r}")
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
                raise ServerError(f"malformed event after {len(found.counts)} pieces: no JSON object: {text[:80]!r}")
            yield line, data

    def read(self, line: Line, data: dict[str, Any], found: Collector) -> None:
        """One event of OpenAI's form, with llama.cpp's ``timings`` and LM Studio's ``stats`` where they are there."""
        for choice in _rows(data, "choices"):
            text = choice.get("text")
            delta = _dict(choice.get("delta"))
            text = delta.get("content") or delta.get("reasoning_content") if text is None else text
            if text:
                found.piece(line.at_s, str(text))
            if choice.get("finish_reason"):
                found.tell(finish=_text(choice["finish_reason"]))
        found.tell(**_answer_facts(data, "openai"))


class LlamaServer(OpenAI):
    """llama.cpp's own server, through the interface that numbers tokens and gives its timings."""

    software = "llama-server"
    path = "/completion"

    def describe(self) -> Described:
        """``/props`` and the model's own card; errors as :meth:`OpenAI.describe`."""
        props = _dict(self.endpoint.json("/props"))
        rows = _rows(self.endpoint.json("/v1/models"), "data")
        told = self._described(props=props, card=self._choose(rows, "id"))
        return told.replace(quant=mixture_in(told.quant))

    def count_tokens(self, text: str) -> int | None:
        """Tokens of ``text``, by ``/tokenize``."""
        ids = self.token_ids(text)
        return None if ids is None else len(ids)

    def token_ids(self, text: str) -> tuple[int, ...] | None:
        """The tokens themselves; None where the server does not tell them."""
        tokens = _dict(self.endpoint.json("/tokenize", {"content": text, "add_special": True})).get("tokens")
        vocab = self.described.vocab_count
        if not isinstance(tokens, list) or not all(type(one) is int and 0 <= one < vocab for one in tokens):
            return None
        return tuple(tokens)

    def body(self, request: Request) -> dict[str, Any]:
        """Greedy, past end tokens, with the cache used only on purpose."""
        return {
            "model": self.model,
            "prompt": request.prompt,
            "n_predict": request.new_tokens,
            "temperature": 0.0,
            "samplers": ["temperature"],
            "ignore_eos": True,
            "cache_prompt": request.reuse,
            "return_tokens": True,
            "stream": True,
        }

    def read(self, line: Line, data: dict[str, Any], found: Collector) -> None:
        """One event of ``/completion``; the last one has ``stop`` and the timings."""
        if data.get("content") or data.get("tokens"):
            # Tokens of an unfinished character come with the piece that ends it: the count says how many.
            count = _count(data.get("tokens_predicted"), "tokens_predicted")
            found.piece(line.at_s, str(data.get("content") or ""), count)
        if data.get("stop") is not True:
            return
        found.complete = True
        facts = {"new_tokens": 0} | _answer_facts(data, self.software)
        new_tokens = facts["new_tokens"]
        if found.token_count < new_tokens <= found.wanted:
            found.piece(line.at_s, "", new_tokens)  # the last ones are no whole character: they come with the end
        found.tell(**facts)


class LMStudio(OpenAI):
    """LM Studio, by the interface that tells quantisation, state and its own times."""

    software = "lmstudio"
    path = "/api/v0/completions"

    def describe(self) -> Described:
        """The model's row of ``/api/v0/models``: the loaded one where none was named."""
        rows = [r for r in _rows(self.endpoint.json("/api/v0/models"), "data") if r.get("type") != "embeddings"]
        loaded = [r for r in rows if r.get("state") == "loaded"]
        return self._described(card=self._choose(loaded if loaded and not self.model else rows, "id"))


class Ollama(OpenAI):
    """Ollama's own interface: one JSON object a line, times in nanoseconds, a model that can be unloaded."""

    software = "ollama"
    path = "/api/generate"

    def describe(self) -> Described:
        """``/api/show`` of the model: the running one where none was named, else the only one."""
        running = _rows(self.endpoint.json("/api/ps"), "models")
        rows = _rows(self.endpoint.json("/api/tags"), "models")
        if self.model and ":" not in self.model:
            self.model += ":latest"
        card = self._choose(running if len(running) == 1 and not self.model else rows, "name")
        shown = self.endpoint.json("/api/show", {"model": self.model})
        return self._described(card=card, shown=shown, version=self.endpoint.json("/api/version"))

    def unload(self) -> bool:
        """By ``keep_alive: 0``."""
        done = _dict(self.endpoint.json(self.path, {"model": self.model, "keep_alive": 0, "stream": False}))
        return done.get("done") is True

    def body(self, request: Request) -> dict[str, Any]:
        """Greedy, without a template."""
        options = {"num_predict": request.new_tokens, "temperature": 0, "num_ctx": request.context_tokens}
        return {"model": self.model, "prompt": request.prompt, "raw": True, "stream": True, "options": options}

    def read(self, line: Line, data: dict[str, Any], found: Collector) -> None:
        """One line of ``/api/generate``; the last one has ``done`` and the times."""
        if text := data.get("response") or data.get("thinking"):
            found.piece(line.at_s, str(text))
        if data.get("done") is not True:
            return
        found.complete = True
        found.tell(**_answer_facts(data, self.software))


_PINGS_MAX: Final = 10_000
"""Lines of a stream that say nothing, beyond one for each piece."""
_SPEAKS: Final[tuple[tuple[type[OpenAI], Callable[[Endpoint], bool]], ...]] = (
    (LlamaServer, lambda e: "default_generation_settings" in _dict(e.json("/props"))),
    (LMStudio, lambda e: bool(_rows(e.json("/api/v0/models"), "data"))),
    (Ollama, lambda e: "version" in _dict(e.json("/api/version")) and "models" in _dict(e.json("/api/tags"))),
    (OpenAI, lambda e: isinstance(e.json("/v1/models"), dict)),
)
"""How each dialect is recognised, the one that tells most first."""


def dialect_of(endpoint: Endpoint, model: str = "") -> OpenAI:
    """The dialect that a server speaks.

    Raises:
        ServerError: It cannot be reached, or speaks none of them.
        RefusedError: It has no such model.
    """
    for dialect, speaks in _SPEAKS:
        if speaks(endpoint):
            return dialect(endpoint, model)
    raise ServerError(f"what answers at port {endpoint.port} is no server of models: it has no /v1/models", "refused")


def _at(value: Any, place: str) -> Any:
    """What stands at a place such as ``usage/prompt_tokens``; None where there is nothing."""
    for name in place.split("/"):
        value = _dict(value).get(name)
    return value


def _answer_facts(data: dict[str, Any], software: str) -> dict[str, Any]:
    """Fields of an answer that an event tells; ServerError for a count that is none."""
    facts = dict[str, Any]()
    for name, places in _TOLD[software]["answer"].items():
        for place in places.split():
            value = _at(data, place)
            if name.endswith("_s"):
                value = _seconds(value, 1e-3 if place.endswith("_ms") else 1e-9 if place.endswith("_duration") else 1.0)
            elif name.endswith("_tokens"):
                value = _count(value, place.replace("/", "."))
            if value is not None:
                facts.setdefault(name, value if name != "finish" else _text(value))
    return facts


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _rows(value: Any, key: str) -> list[dict[str, Any]]:
    found = value.get(key) if isinstance(value, Mapping) else None
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def _text(value: Any, most: int = 200) -> str:
    return "" if value is None else clean(str(value), most)


def _file_name(name: str) -> str:
    """A model's name; of a path on the server's machine the file alone: folders of a home are nobody's business."""
    return PureWindowsPath(name).name if name[:1] in {"/", "\\"} or name[1:3] in {":\\", ":/"} else name


def _count(value: Any, field: str = "") -> int | None:
    """A count; None where there is none, ServerError where a ``field`` must have one and has something else."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if value is not None and field:
        raise ServerError(f"malformed event: {field}: found {_text(value, 40)!r}, expected a count")
    return None


def _seconds(value: Any, unit_s: float) -> float | None:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")
    return value * unit_s if good else None
